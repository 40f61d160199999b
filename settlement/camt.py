"""Statements as ISO 20022 camt.053.001.08, for a member's own books and bank: one document for an account and cycle.

Each money balance of the account (cash, escrow, bond, withdrawing, frozen) that stood or moved is a statement in it;
lots and shares have no place in camt. The stablecoin is stated in dollars, because a currency has three letters there,
and in cents: every amount is rounded by itself, halves away from zero. What is then missing between opening and closing
is one more entry, with the code `rounding`, and the exact amount of every entry stands in its `AddtlNtryInf`. The
closing balance is the opening of the next cycle, rounded alike.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import NS
from settlement.accounts import STABLECOIN, money_text
from settlement.batches import Batch
from settlement.ledger import Code
from settlement.service import Books
from settlement.statements import LOTS, POCKETS, balances_of, entries_of

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
CURRENCY = "USD"
MICROS_PER_CENT = 10_000
NAME_LENGTH = 70
_CODE_TEXT = {int(code): code.name.lower() for code in Code}


def cents(micros: int) -> int:
    """Rounded, halves away from zero."""
    whole = (abs(micros) + MICROS_PER_CENT // 2) // MICROS_PER_CENT
    return -whole if micros < 0 else whole


class CamtStatements:
    """The documents of one cycle."""

    def __init__(self, books: Books, batch: Batch) -> None:
        self._batch = batch
        self._stablecoin, self._venue = books.catalogue.stablecoin, books.catalogue.venue
        self._names = books.registry.names(batch.to_seq) | {0: "house"}
        self._balances = [_by_owner(books, cycle) for cycle in (batch.cycle - 1, batch.cycle)]
        self._moments = books.ledger.moments(batch.from_seq, batch.to_seq)
        self._entries: dict[int, NDArray[Any]] = {}
        parts = [entries_of(rows[rows["asset"] == STABLECOIN]) for rows in _transfers(books, batch)]
        if parts:
            entries = np.concatenate(parts)
            entries = entries[np.argsort(entries["owner"], kind="stable")]
            owners, starts = np.unique(entries["owner"], return_index=True)
            self._entries = dict(zip(owners.tolist(), np.split(entries, starts)[1:], strict=True))

    def accounts(self) -> list[int]:
        """Who has a document: everybody who had money, or moved some."""
        return sorted({*self._balances[0], *self._balances[1], *self._entries})

    def render(self, account: int) -> bytes:
        """The document of an account."""
        opening, closing = (found.get(account, {}) for found in self._balances)
        entries = self._entries.get(account)
        moved = [] if entries is None else np.unique(entries["pocket"]).tolist()
        pockets = sorted({*opening, *closing, *moved}) or [0]
        statements = [self._statement(account, n, opening.get(n, 0), closing.get(n, 0), entries) for n in pockets]
        head = _tag("GrpHdr", _tag("MsgId", f"{self._batch.cycle}-{account}"), _tag("CreDtTm", self._time(-1)))
        body = _tag("BkToCstmrStmt", head, *statements)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}">{body}</Document>\n'.encode()

    def _statement(
        self, account: int, pocket: int, opening: int, closing: int, entries: NDArray[Any] | None
    ) -> str:  # fmt: skip
        lines, total = [], cents(opening)
        if entries is not None:
            for entry in entries[entries["pocket"] == pocket]:
                total += cents(int(entry["amount"]))
                lines.append(self._entry(entry))
        rounding = cents(closing) - total
        if rounding:
            note = "what rounding each amount to cents leaves between opening and closing"
            lines.append(_ntry("", rounding, self._time(-1), "rounding", note))
        owner = f"{account}.{POCKETS[pocket]}"
        name = escape(self._names.get(account, "")[:NAME_LENGTH]) or str(account)
        return _tag(
            "Stmt",
            _tag("Id", f"{self._batch.cycle}-{owner}"),
            _tag("ElctrncSeqNb", str(self._batch.cycle)),
            _tag("CreDtTm", self._time(-1)),
            _tag("FrToDt", _tag("FrDtTm", self._time(0)), _tag("ToDtTm", self._time(-1))),
            _tag("Acct", _tag("Id", _tag("Othr", _tag("Id", owner))), _tag("Ccy", CURRENCY), _tag("Nm", name)),
            _balance("OPBD", cents(opening), self._time(0)),
            _balance("CLBD", cents(closing), self._time(-1)),
            *lines,
            _tag("AddtlStmtInf", self._note(opening, closing)),
        )

    def _note(self, opening: int, closing: int) -> str:
        exact = f"exact opening {money_text(opening)}, closing {money_text(closing)} {self._stablecoin}"
        batch = f"{self._venue} settlement batch {self._batch.batch_id.hex()}, commands {self._batch.from_seq} to"
        return escape(f"{batch} {self._batch.to_seq}; {self._stablecoin} stated as {CURRENCY} in cents; {exact}")

    def _entry(self, entry: Any) -> str:
        move, amount = entry["move"], int(entry["amount"])
        at = int(np.searchsorted(self._moments["seq"], move["seq"], "right")) - 1
        exact = f"{money_text(amount)} {self._stablecoin}, listing {move['listing']}"
        code = _CODE_TEXT.get(int(move["code"]), "other")
        return _ntry(f"{move['seq']}.{move['leg']}", cents(amount), self._time(at), code, exact)

    def _time(self, at: int) -> str:
        """Of the cycle's moments, by their place; the epoch where nothing happened."""
        ts_ns = int(self._moments["ts_ns"][at]) if len(self._moments) else 0
        return f"{datetime.fromtimestamp(ts_ns // NS, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _transfers(books: Books, batch: Batch) -> Iterator[NDArray[Any]]:
    return books.ledger.transfers(batch.from_seq, batch.to_seq)


def _by_owner(books: Books, cycle: int) -> dict[int, dict[int, int]]:
    """Owner -> pocket -> money at the end of a cycle."""
    found: dict[int, dict[int, int]] = {}
    for (owner, pocket, _), amount in balances_of(books.batches.closing(cycle)).items():
        if pocket < LOTS:
            found.setdefault(owner, {})[pocket] = amount
    return found


def _tag(name: str, *content: str) -> str:
    return f"<{name}>{''.join(content)}</{name}>"


def _amount(whole_cents: int) -> str:
    dollars, rest = divmod(abs(whole_cents), 100)
    side = "DBIT" if whole_cents < 0 else "CRDT"
    return f'<Amt Ccy="{CURRENCY}">{dollars}.{rest:02d}</Amt><CdtDbtInd>{side}</CdtDbtInd>'


def _balance(code: str, whole_cents: int, time: str) -> str:
    kind = _tag("Tp", _tag("CdOrPrtry", _tag("Cd", code)))
    return _tag("Bal", kind, _amount(whole_cents), _tag("Dt", _tag("DtTm", time)))


def _ntry(place: str, whole_cents: int, time: str, code: str, note: str) -> str:
    """`place` is the transfer's in the log, seq and leg."""
    return _tag(
        "Ntry",
        _tag("NtryRef", place) if place else "",
        _amount(whole_cents),
        _tag("Sts", _tag("Cd", "BOOK")),
        _tag("BookgDt", _tag("DtTm", time)),
        _tag("BkTxCd", _tag("Prtry", _tag("Cd", code))),
        _tag("AddtlNtryInf", escape(note)),
    )


def write_camt(books: Books, batch: Batch, directory: Path) -> int:
    """Write `directory`/<account>.xml for everybody in a batch; how many. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    statements = CamtStatements(books, batch)
    for account in statements.accounts():
        draft = directory / f".{account}.draft"
        draft.write_bytes(statements.render(account))
        os.replace(draft, directory / f"{account}.xml")
    return len(statements.accounts())
