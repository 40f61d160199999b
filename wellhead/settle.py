"""What `wellhead settle` does, as functions: run, export, prove, check.

For cron: each may be repeated, and the exit codes mean: 0 done (or nothing to do), 1 it failed or a proof is wrong,
2 used wrongly, 75 come again later, because a node has the directory open (EX_TEMPFAIL, which schedulers know).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.log import LogError, LogLocked
from engine.types import COMMAND, Kind
from settlement import vault_part
from settlement.accounts import owner_of, shares_of
from settlement.batches import Batch, BatchError, BatchState
from settlement.camt import write_camt
from settlement.income import render
from settlement.liabilities import Node, SumTree, assets_micros, is_counted, leaf, owed_to_members
from settlement.netting import Sums
from settlement.proofs import ProofError, entry, is_included
from settlement.service import Books, has_books
from settlement.statements import Statements
from wellhead.additions import load_catalogue
from wellhead.config import Config
from wellhead.exchange import Exchange, Progress, RecoveryError
from wellhead.limits import LimitsHistory

EXIT_BUSY = 75


class SettleError(Exception):
    """It could not be done; `exit_code` says what a scheduler should make of it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class RunReport:
    """The newest batch, and whether this run made it."""

    batch: Batch | None
    is_new: bool


def run(data_dir: Path, progress: Progress | None = None) -> RunReport:
    """End the settlement cycle now, in a directory that no node has open; a running node ends its cycles itself.

    Does nothing when nothing has happened since the last cycle ended. Raises SettleError.
    """
    _require_books(data_dir)
    try:
        # Whoever ran it last said which limits are in force.
        config = Config(data_dir, limits=LimitsHistory(data_dir).newest)
        exchange = Exchange.open(config, load_catalogue(data_dir))
    except LogLocked as error:
        raise SettleError(f"a node has it open, which ends its cycles itself: {error}", EXIT_BUSY) from error
    except (LogError, RecoveryError, BatchError, ValueError) as error:
        raise SettleError(str(error)) from error
    try:
        exchange.recover(progress=progress)
        last = exchange.settlement.last_batch()
        if (last and last.to_seq == exchange.log.head_seq) or not exchange.log.head_seq:
            return RunReport(last, False)
        _close_cycle(exchange)
        return RunReport(exchange.settlement.last_batch(), True)
    except BatchError as error:
        raise SettleError(str(error)) from error
    finally:
        exchange.close()


def _close_cycle(exchange: Exchange) -> None:
    command = np.zeros(1, COMMAND)
    command["kind"], command["ts_ns"] = Kind.CLOSE_CYCLE, exchange.engine.now_ns
    exchange.log.append(command)
    exchange.log.sync()
    exchange.settlement.on_batch(command, exchange.engine.apply(command))


def open_books(data_dir: Path) -> Books:
    """The books to look at, beside a running node or without one. Raises SettleError."""
    _require_books(data_dir)
    return Books(Config(data_dir).settlement_dir, load_catalogue(data_dir), read_only=True)


def _require_books(data_dir: Path) -> None:
    if not has_books(Config(data_dir).settlement_dir):
        raise SettleError(f"{data_dir} holds no books", 2)


def frozen_batch(books: Books, cycle: int | None) -> Batch:
    """The batch of a cycle, the newest one without a number. Raises SettleError."""
    batches = [batch for batch in books.batches.all() if batch.state >= BatchState.FROZEN]
    found = [batch for batch in batches if cycle in (None, batch.cycle)]
    if not found:
        raise SettleError("no cycle is settled yet" if cycle is None else f"cycle {cycle} is not settled", 2)
    return found[-1]


def export(data_dir: Path, cycle: int | None, out: Path) -> Path:
    """The statements of a cycle, rendered from the books into `out`/<cycle>; what is there already stays.

    Raises SettleError.
    """
    with open_books(data_dir) as books, books.database.reading():
        batch = frozen_batch(books, cycle)
        statements = Statements(out, books.ledger, books.registry, books.batches, books.catalogue.stablecoin)
        place = statements.write(batch)
        vault_part.write(place, vault_part.read(books.statements.directory / str(batch.cycle)))
        return place


def export_parquet(data_dir: Path, cycle: int | None, out: Path) -> Path:
    """All statements of a cycle as one file, `out`/<cycle>.parquet. Raises SettleError, also without pyarrow."""
    try:
        from settlement.parquet import write_parquet  # noqa: PLC0415 - needs an optional package
    except ImportError as error:
        raise SettleError(f"{error}: install wellhead[data]", 2) from error
    with open_books(data_dir) as books, books.database.reading():
        batch = frozen_batch(books, cycle)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{batch.cycle}.parquet"
        write_parquet(books, batch, path)
        return path


def export_camt(data_dir: Path, cycle: int | None, out: Path) -> Path:
    """The statements of a cycle as ISO 20022 camt.053, `out`/<cycle>-camt/<account>.xml. Raises SettleError."""
    with open_books(data_dir) as books, books.database.reading():
        batch = frozen_batch(books, cycle)
        place = out / f"{batch.cycle}-camt"
        write_camt(books, batch, place)
        return place


def register_of(books: Books, pool: int, cycle: int | None) -> dict[int, int]:
    """Account -> its shares of a pool, now or at the end of a cycle. Raises SettleError."""
    if pool not in books.registry.names():
        raise SettleError(f"there is no account {pool}", 2)
    balances = books.ledger.balances() if cycle is None else books.batches.closing(frozen_batch(books, cycle).cycle)
    asset = shares_of(pool)
    held = {owner_of(account): lots for (of, account), lots in balances.items() if of == asset}
    # The pool owes what others hold; what it holds itself moves nothing in the ledger.
    return {account: lots for account, lots in sorted(held.items()) if account != pool}


def export_income(data_dir: Path, cycle: int | None, account: int, out: Path) -> Path:
    """A provider's income statement as one HTML file. Raises SettleError."""
    with open_books(data_dir) as books, books.database.reading():
        batch = frozen_batch(books, cycle)
        if account not in books.registry.names(batch.to_seq):
            raise SettleError(f"there was no account {account} in cycle {batch.cycle}", 2)
        out.write_text(render(books, batch, account), encoding="utf-8")
        return out


def proof_of(books: Books, cycle: int | None, account: int) -> dict[str, Any]:
    """What a third party needs to check an account's net, and that what it is owed is counted. Raises SettleError."""
    batch = frozen_batch(books, cycle)
    members = books.batches.members(batch)
    if account not in members:
        raise SettleError(f"there was no account {account} in cycle {batch.cycle}", 2)
    tree, index = books.batches.tree(batch), members.index(account)
    sums = books.batches.nets(batch.cycle).get(account, Sums(0, 0))
    proof: dict[str, Any] = {
        "cycle": batch.cycle,
        "account": account,
        "net_micros": sums.net_micros,
        "external_micros": sums.external_micros,
        "batch_id": batch.batch_id.hex(),
        "root": batch.root.hex(),
        "index": index,
        "leaves": tree.count,
        "partners": [partner.hex() for partner in tree.proof(index)],
    }
    if account:
        proof["liability"] = _liability(books, batch, account)
    return proof


def _liability(books: Books, batch: Batch, account: int) -> dict[str, Any]:
    closing = books.batches.closing(batch.cycle)
    tree = SumTree(batch.cycle, owed_to_members(closing, books.batches.members(batch)))
    index = tree.accounts.index(account)
    return {
        "cycle": batch.cycle,
        "account": account,
        "owed_micros": tree.owed[account],
        "total_micros": tree.total_micros,
        "assets_micros": assets_micros(closing),
        "root": tree.root.hex(),
        "index": index,
        "leaves": tree.count,
        "partners": [(node.amount_micros, node.digest.hex()) for node in tree.proof(index)],
    }


class LiabilityFile(msgspec.Struct):
    """The second half of a proof file."""

    cycle: int
    account: int
    owed_micros: int
    total_micros: int
    root: str
    index: int
    leaves: int
    partners: list[tuple[int, str]]


class ProofFile(msgspec.Struct):
    """A proof as `prove` wrote it."""

    cycle: int
    account: int
    net_micros: int
    external_micros: int
    root: str
    index: int
    leaves: int
    partners: list[str]
    liability: LiabilityFile | None = None


def check(data: bytes, root: str | None, liability_root: str | None) -> list[str]:
    """What a proof file proves, a line each. The roots are those published; without one the file's own is taken.

    Raises SettleError where it does not hold.
    """
    try:
        proof = msgspec.json.decode(data, type=ProofFile)
        lines = [_check_net(proof, root)]
        if proof.liability:
            lines.append(_check_liability(proof.liability, liability_root))
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise SettleError(f"not a proof: {error}") from error
    return lines


def _check_net(proof: ProofFile, root: str | None) -> str:
    data = entry(proof.cycle, proof.account, proof.net_micros, proof.external_micros)
    partners = [bytes.fromhex(text) for text in proof.partners]
    if not is_included(data, proof.index, proof.leaves, partners, bytes.fromhex(root or proof.root)):
        raise SettleError(f"the net of account {proof.account} is not under this root")
    return f"cycle {proof.cycle}: account {proof.account} has a net of {proof.net_micros} micros"


def _check_liability(proof: LiabilityFile, root: str | None) -> str:
    partners = [Node(bytes.fromhex(digest), amount) for amount, digest in proof.partners]
    try:
        own = leaf(proof.cycle, proof.account, proof.owed_micros)
    except ProofError as error:
        raise SettleError(str(error)) from error
    published = bytes.fromhex(root or proof.root)
    if not is_counted(own, (proof.index, proof.leaves), partners, proof.total_micros, published):
        raise SettleError(f"what account {proof.account} is owed is not counted in the total")
    return f"cycle {proof.cycle}: {proof.owed_micros} micros are counted in a total of {proof.total_micros}"
