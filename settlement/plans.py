"""From the ledger's rows to the calls that carry them out, and the policy that works each of them out a second time.

    withdrawal:SEQ                 withdraw        the withdrawal that the command SEQ asked for
    chunk:TOKEN:CYCLE:CHUNK        settle_batch    a part of a cycle's payouts
    propose:TOKEN:EPOCH:CYCLE      propose_root    what everybody may claim, and take along
    finalize:TOKEN:EPOCH:CYCLE     finalize_root
    dispute:TOKEN:EPOCH:ROOT       dispute         of a root that is not ours
    lock:TOKEN:BLOCK               lock            at a difference
    transfer:TOKEN:HASH:POSITION   credit_transfer of coins that were sent without a word

A plan is a pure function of rows, so asking twice gives the same call. What a row cannot know (the deadline and the
signatures of a withdrawal, the rows of a chunk) stands in the plan's `facts`, and the policy checks it against limits.
"""

from collections.abc import Callable, Mapping, Sequence

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from settlement import vault
from settlement.abi import interface
from settlement.batches import Batches, BatchState
from settlement.database import Database
from settlement.flows import Flows, Route, WithdrawalState
from settlement.flows import Withdrawal as Row
from settlement.outbox import Plan
from settlement.signer import Refused, Request, Transaction
from settlement.stablecoins import Stablecoins, Token

VALIDITY_S = 3_600
"""How long the signatures of a withdrawal are good: after it, bytes that were seen and not used are worth nothing."""
_ID = b"wellhead withdrawal 1\n"


def withdrawal_id(seq: int) -> bytes:
    """Under which the vault pays a withdrawal once, whoever hands it in and however often."""
    return keccak(_ID + seq.to_bytes(8, "big"))


def withdrawal_purpose(seq: int) -> str:
    return f"withdrawal:{seq}"


def chunk_purpose(token: int, cycle: int, chunk: int) -> str:
    return f"chunk:{token}:{cycle}:{chunk}"


def authorization(token: Token, row: Row, deadline_s: int) -> vault.Withdrawal:
    """What the signers sign for a withdrawal."""
    account, recipient = to_checksum_address(row.home), to_checksum_address(row.recipient)
    units = token.to_units(row.quantity_micros)
    return vault.Withdrawal(withdrawal_id(row.seq), account, recipient, units, deadline_s)


def withdrawal_plan(token: Token, row: Row, deadline_s: int, signatures: Mapping[str, bytes]) -> Plan:
    """A single withdrawal, once its signers have signed."""
    signed = authorization(token, row, deadline_s)
    ordered = vault.in_order(signatures)
    data = interface("Vault").call(
        "withdraw", signed.id, signed.account, signed.recipient, signed.units, deadline_s, ordered
    )
    expected = {"id": signed.id, "account": signed.account, "recipient": signed.recipient, "units": signed.units}
    facts = (deadline_s, tuple(sorted(signatures.items())))
    return Plan(withdrawal_purpose(row.seq), token.network.chain_id, token.vault, data, "Withdrawn", expected, facts)


def chunk_plan(token: Token, rows: Sequence[Row], batch_id: bytes, chunk: int) -> Plan:
    """Payouts of one cycle, in the order of their commands."""
    cycle = rows[0].cycle
    payments = [(to_checksum_address(row.recipient), token.to_units(row.quantity_micros)) for row in rows]
    (content,) = vault.chunks(payments, vault.MAX_CHUNK)
    call = interface("Vault").call("settle_batch", batch_id, cycle, chunk, content.recipients, content.amounts)
    expected = {"batch_id": batch_id, "cycle": cycle, "chunk": chunk, "count": len(rows), "content": content.content}
    facts = (batch_id, tuple(row.seq for row in rows))
    return Plan(
        chunk_purpose(token.number, cycle, chunk),
        token.network.chain_id,
        token.vault,
        call,
        "ChunkSettled",
        expected,
        facts,
    )


def lock_purpose(token: int, block: int) -> str:
    return f"lock:{token}:{block}"


def lock_plan(token: Token, purpose: str) -> Plan:
    """Stops what leaves by the exchange's keys and by claims, until the vault's admin unlocks it."""
    return Plan(purpose, token.network.chain_id, token.vault, interface("Vault").call("lock"), "Locked", {})


class LedgerPolicy:
    """Signs what the ledger says and nothing else. Reads the ledger through a connection of its own."""

    def __init__(
        self,
        ledger: Database,
        coins: Stablecoins,
        now_s: Callable[[], int],
        others: Callable[[str], Plan] | None = None,
    ) -> None:
        """`others` makes the plan of a root or a transfer again, from what custody has stored."""
        self._flows = Flows(ledger)
        self._batches = Batches(ledger)
        self._coins = coins
        self._now_s = now_s
        self._others = others

    def check(self, request: Request) -> bytes:
        """The digest as worked out from the ledger's own rows. Raises Refused."""
        kind, *numbers = request.purpose.split(":")
        try:
            plan = self._plan(kind, [int(number) for number in numbers], request)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise Refused(f"{request.purpose}: the ledger has no reason for it: {error!r}") from error
        if isinstance(plan, bytes):
            return plan
        transaction = request.content
        if isinstance(transaction, bytes):
            raise Refused(f"{request.purpose}: a transaction was to be signed, not a digest")
        self._require_modest(request.purpose, transaction)
        return Transaction(
            plan.chain_id, transaction.nonce, plan.target, plan.data, transaction.gas,
            transaction.max_fee_wei, transaction.priority_wei,
        ).digest  # fmt: skip

    def _plan(self, kind: str, numbers: list[int], request: Request) -> Plan | bytes:
        if kind == "withdrawal":
            return self._withdrawal(numbers[0], request)
        if kind == "chunk":
            return self._chunk(numbers, request)
        if kind == "lock":  # it only stops things, so nothing need be asked
            return lock_plan(self._coins.tokens[numbers[0]], request.purpose)
        if kind in {"propose", "finalize", "dispute", "transfer"} and self._others is not None:
            return self._others(request.purpose)
        raise Refused(f"{request.purpose}: this key does not sign such a thing")

    def _withdrawal(self, seq: int, request: Request) -> Plan | bytes:
        row = self._open_row(seq, Route.SINGLE)
        token, deadline_s = self._coins.tokens[row.token], request.facts[0]
        if isinstance(request.content, bytes):  # a withdrawal's own signature, not the transaction's
            now_s = self._now_s()
            if not now_s < deadline_s <= now_s + VALIDITY_S:
                raise Refused(f"{request.purpose}: a deadline of {deadline_s} is not within {VALIDITY_S} s")
            return authorization(token, row, deadline_s).digest(token.vault_domain)
        return withdrawal_plan(token, row, deadline_s, dict(request.facts[1]))

    def _chunk(self, numbers: list[int], request: Request) -> Plan:
        number, cycle, chunk = numbers
        batch_id, seqs = request.facts
        batch = self._batches.get(cycle)
        if batch.state < BatchState.FROZEN or batch.batch_id != batch_id:
            raise Refused(f"{request.purpose}: the batch of cycle {cycle} is not frozen under this id")
        if len(set(seqs)) != len(seqs):
            raise Refused(f"{request.purpose}: a row is there twice")
        rows = [self._open_row(seq, Route.BATCH) for seq in seqs]
        if {(row.token, row.cycle) for row in rows} != {(number, cycle)}:
            raise Refused(f"{request.purpose}: a row is of another token or cycle")
        return chunk_plan(self._coins.tokens[number], rows, batch_id, chunk)

    def _open_row(self, seq: int, route: Route) -> Row:
        row = self._flows.withdrawal(seq)
        if row.state != WithdrawalState.WITHDRAWING or row.route != route:
            raise Refused(f"withdrawal {seq} is {row.state.name}, {row.route.name}")
        return row

    def _require_modest(self, purpose: str, transaction: Transaction) -> None:
        """Fees, gas and chain are not in the ledger, but they have bounds: a key must not burn its own funds."""
        networks = {network.chain_id: network for network in self._coins.networks()}
        network = networks.get(transaction.chain_id)
        if network is None or transaction.max_fee_wei > network.max_fee_wei or transaction.gas > network.max_gas:
            raise Refused(f"{purpose}: chain, gas or fee is outside what is allowed: {transaction}")


def units_of(token: Token, rows: Sequence[Row]) -> int:
    """What some withdrawals come to on the chain."""
    return sum(token.to_units(row.quantity_micros) for row in rows)
