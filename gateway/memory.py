"""The tables in memory: made, grown, stored, and the calls of compiled code on them."""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.catalogue import pack_id
from engine.kernel import JIT, Records
from engine.records import zeros
from engine.types import Reason
from gateway.config import GatewayConfig
from gateway.fast import accept, doors
from gateway.fast.compose import composer
from gateway.fast.tables import CHUNK, FIRST_ROWS, GROWING, GROWTH, HEAD, REMEMBERED, SHAPES
from gateway.fast.templates import Phrases, compiled
from gateway.messages import Error, Format
from gateway.reserved import Reserved

LITERAL_BYTES, PHRASE_ROWS = 1 << 20, 4_096
MOST_EXTENTS = 10_000
"""Ladders of an account that are known; beyond, those that are on their way and in no book yet are forgotten."""
HEAD_REMEMBERED = (
    "accounts_used", "instruments_used", "orders_used", "orders_free", "positions_used", "positions_free", "chunks_used",
    "levels_used", "symbols_used", "first_finished", "last_finished", "finished", "forgotten_early",
)  # fmt: skip
LINKS = {"orders": ("next_id", "next_cid"), "positions": ("next_hash",), "instruments": ("next_symbol",)}
"""Hash chains: not stored, made anew."""

SPARE = 256
"""Commands and events that there is room for beyond a batch's own, so that small batches need not count it each time."""
PLACES = {name: place for place, name in enumerate(HEAD.names or ())}
AT_HAND = ("commands", "command_at", "events", "event_at", "event_end", "stage", "step", "t_out")
"""Of the head, one behind the other: what is said of the batch at hand."""
AT_HAND_BYTES, AT_HAND_PLACE = Struct(f"={len(AT_HAND)}q"), 8 * PLACES[AT_HAND[0]]
BATCH_TABLES = {"commands": ("commands", "words"), "events": ("events",)}
"""The tables in which compiled code sees the records of the batch at hand."""


class Head:
    """The record of counters and limits: plain integers in and out, many times as quickly as from numpy's record."""

    def __init__(self, record: NDArray[Any]) -> None:
        self._words = record.view("<i8").data
        self._bytes = self._words.cast("B")

    def __getitem__(self, name: str) -> int:
        value: int = self._words[PLACES[name]]
        return value

    def __setitem__(self, name: str, value: int) -> None:
        self._words[PLACES[name]] = value

    def begin_batch(self, commands: int, events: int, t_out: int) -> None:
        """A batch of so many is the one at hand, and at its beginning."""
        AT_HAND_BYTES.pack_into(self._bytes, AT_HAND_PLACE, commands, 0, events, 0, 0, 0, 0, t_out)


class Namespace:
    """The tables as kernels see them that are not compiled."""


class Tables:
    """All tables of a gateway, an attribute each. `head` is the one record of counters and limits."""

    head: Head
    accounts: NDArray[Any]
    live: NDArray[Any]
    orders: NDArray[Any]
    positions: NDArray[Any]
    instruments: NDArray[Any]
    sides: NDArray[Any]
    levels: NDArray[Any]
    symbols: NDArray[Any]
    recent: NDArray[Any]
    records: NDArray[Any]
    values: NDArray[Any]
    sessions: NDArray[Any]
    pendings: NDArray[Any]
    results: NDArray[Any]
    wishes: NDArray[Any]
    extents: NDArray[Any]
    extent_levels: NDArray[Any]
    refused: NDArray[Any]
    key: NDArray[Any]
    changed: NDArray[Any]
    dirty: NDArray[Any]
    trades: NDArray[Any]
    groups: NDArray[Any]
    unsent: NDArray[Any]
    out: NDArray[Any]
    gathered: NDArray[Any]
    inbox: NDArray[Any]
    payload: NDArray[Any]

    def __init__(self, config: GatewayConfig, errors: dict[Reason, Error], own: list[Error], first_ref: int) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        self._growing: dict[str, Reserved] = {}
        self._table = np.zeros(2 * len(SHAPES), np.int64)
        self._pairs = self._table.data
        self._held = dict.fromkeys(BATCH_TABLES, memoryview(b""))
        self._row = {name: 2 * place for place, name in enumerate(SHAPES)}
        self._interpreted = Namespace()
        self._symbol_numbers: dict[str, int] = {}
        self._free_sessions: list[int] = []
        self._last_session = 0
        self._last_uid = 0
        self._spare_commands = self._spare_events = 0
        self._first_empty(config)
        self._fill_head(config, first_ref)
        self._fill_phrases(errors, own)
        self.address = self._table.ctypes.data
        self.inbox_view = self.inbox.data
        self.payload_view = self.payload.data
        self.gathered_view = self.gathered.data

    def _first_empty(self, config: GatewayConfig) -> None:
        for name, (dtype, tail) in SHAPES.items():
            rows = FIRST_ROWS.get(name, 1)
            if name == "recent":
                rows = FIRST_ROWS["instruments"] * config.recent_trades
            if name in GROWING:
                self._growing[name] = Reserved(rows, GROWTH, dtype, tail)
            self._set(name, self._growing[name].array if name in GROWING else np.zeros((rows, *tail), dtype))
        self._set("unsent_words", self.unsent.view("<i8").reshape(len(self.unsent), -1))
        self.head = Head(self._arrays["head"])

    def _set(self, name: str, array: NDArray[Any]) -> None:
        self._arrays[name] = array
        if name != "head":
            setattr(self, name, array)
        self._place(name, array.ctypes.data, len(array))
        if not JIT:
            setattr(self._interpreted, name, Records(array))

    def _place(self, name: str, address: int, rows: int) -> None:
        """Tell compiled code where a table is."""
        row = self._row[name]
        self._pairs[row], self._pairs[row + 1] = address, rows

    def _fill_head(self, config: GatewayConfig, first_ref: int) -> None:
        head = self.head
        head["remember_ns"], head["max_remembered"] = config.remember_ns, config.max_remembered_orders
        head["ring_events"], head["recent_trades"] = config.private_ring_events, config.recent_trades
        head["max_pending"], head["max_pending_per_session"] = config.max_pending, config.max_pending_per_session
        head["rate"], head["burst"] = config.rate_per_s, config.rate_burst
        head["max_batch_items"], head["max_message_bytes"] = config.max_batch_items, config.max_message_bytes
        head["max_quote_levels"], head["quotes_per_token"] = config.max_quote_levels, config.rate_quotes_per_token
        head["most_extents"] = MOST_EXTENTS
        head["ref"] = first_ref
        head["composer"] = composer()

    def _fill_phrases(self, errors: dict[Reason, Error], own: list[Error]) -> None:
        self._phrases = phrases = Phrases(errors, own)
        for name, array in compiled(phrases).items():
            room = {"literals": LITERAL_BYTES, "phrases": PHRASE_ROWS}.get(name, 0)  # for what `phrase` adds
            self._set(name, np.concatenate([array, np.zeros((room, *array.shape[1:]), array.dtype)]))
        self._literals_used = len(self._arrays["literals"]) - LITERAL_BYTES
        self._phrases_used = len(phrases.values)
        self._known_phrases: dict[bytes, int] = {}
        self._spoken: dict[int, Error] = {}
        for name in ("side", "type", "tif", "status", "why", "liquidity", "own", "funds", "stp", "act", "frozen"):
            self.head[f"phrase_{name}"] = getattr(phrases, name)
        for reason, number in phrases.error.items():
            self._arrays["reasons"][reason] = number

    def phrase(self, error: Error) -> int:
        """The number of an error that is encoded for compiled code to answer with."""
        encoded = [msgspec.json.encode(error), msgspec.msgpack.encode(error)]
        number = self._known_phrases.get(encoded[0])
        if number is None:
            literals, phrases = self._arrays["literals"], self._arrays["phrases"]
            number, at = self._phrases_used, self._literals_used
            size = sum(map(len, encoded))
            if number == len(phrases) or at + size > len(literals):
                raise MemoryError("too many different errors")
            literals[at : at + size] = np.frombuffer(b"".join(encoded), "u1")
            phrases[number] = at, len(encoded[0]), at + len(encoded[0]), len(encoded[1])
            self._phrases_used, self._literals_used = number + 1, at + size
            self._known_phrases[encoded[0]] = number
            self._spoken[number] = error
        return number

    def error_at(self, number: int) -> Error:
        """The error with a number."""
        return self._spoken.get(number) or self._phrases.values[number]

    # --- Calls --------------------------------------------------------------------------------------------------------

    def do(  # noqa: PLR0913, PLR0917
        self, op: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0
    ) -> int:
        """One of the operations in doors.py."""
        return int(doors.run(self.address if JIT else self._interpreted, op, a, b, c, d, e, f))

    def take_message(self, session: int, data: bytes) -> int:
        """Take in a message; an accept.Take."""
        size = len(data)
        if size > len(self.inbox):
            return accept.DECLINED
        self.payload_view[:size] = data
        return self.do(doors.TAKE_MESSAGE, session, size)

    def record(self, row: int, wire: Format) -> bytes:
        """A private event as a message."""
        return self.out[: self.do(doors.PUT_RECORD, 0, row, int(wire is Format.MSGPACK))].tobytes()

    def find(self, op: int, text: str, account: int) -> int:
        """The row that one of the operations finds by a text and an account."""
        self.key[:5] = pack_id(text).view("<i8") if text else 0
        return self.do(op, account)

    # --- Room ---------------------------------------------------------------------------------------------------------

    def begin_batch(self, commands: NDArray[np.void], events: NDArray[np.void], t_out: int) -> None:
        """Make a batch the one at hand, and room for whatever it brings."""
        command_count, event_count = len(commands), len(events)
        self._spare_commands -= command_count
        self._spare_events -= event_count + 1
        if self._spare_commands < 0 or self._spare_events < 0:
            self._make_room(command_count + SPARE, event_count + SPARE)
            self._spare_commands = self._spare_events = SPARE
        self._hold("commands", commands)
        self._hold("events", events)
        if not JIT:
            self._interpreted.commands = Records(commands)  # type: ignore[attr-defined]
            self._interpreted.words = Records(commands.view("<i8").reshape(len(commands), -1))  # type: ignore[attr-defined]
            self._interpreted.events = Records(events)  # type: ignore[attr-defined]
        self.head.begin_batch(command_count, event_count, t_out)

    def _hold(self, name: str, records: NDArray[np.void]) -> None:
        """Copy records to where compiled code reads them: that is quicker than to ask numpy where they are."""
        data = records.tobytes()
        if len(data) > len(self._held[name]):
            held = zeros(2 * len(records), records.dtype)
            self._held[name] = held.view(np.uint8).data
            for table in BATCH_TABLES[name]:
                self._place(table, held.ctypes.data, len(held))
        self._held[name][: len(data)] = data

    def _make_room(self, commands: int, events: int) -> None:
        """Room for batches of so many in all, counted in the ways in which they can need the most."""
        head, private = self.head, 8 * (events + 1)
        chunks = head["chunks_used"] + min(private, head["accounts_used"] + commands + private // CHUNK) + 2
        self._need("orders", head["orders_used"] + commands + 2)
        self._need("positions", head["positions_used"] + 2 * events + commands + 2)
        self._need("changed", head["changed"] + 4 * events + 4)
        self._need("levels", 3 * head["levels_used"] + 64 * (events + 1))
        self._need("next_chunk", chunks)
        self._need("records", CHUNK * chunks)
        self._need("values", CHUNK * chunks)

    def ahead(self) -> list[Callable[[], None]]:
        """What a thread can do now and then, so that the market need not wait for fresh memory."""
        used = self._used()
        jobs = [
            self._growing[name].ahead(used[name]) for name in ("orders", "records", "values", "positions", "levels")
        ]
        return [job for job in jobs if job is not None]

    def _need(self, name: str, rows: int) -> None:
        if rows > len(self._arrays[name]):
            self._set(name, self._growing[name].grow(rows))

    def need_account(self, number: int) -> None:
        """Make room for an account number."""
        self.head["accounts_used"] = max(self.head["accounts_used"], number + 1)
        for name in ("accounts", "live"):
            self._need(name, number + 1)

    def need_extents(self, account: int, ladders: int) -> None:
        """Have the account's ladders be known, and room for as many more."""
        live = self.live[account]
        if live["extents"] >= MOST_EXTENTS:
            self.do(doors.FORGET_EXTENTS, account)
        count = 0 if live["has_extents"] else int(self.accounts[account]["orders"])
        for name in ("extents", "extent_levels"):
            self._need(name, int(self.head["extents_used"]) + count + ladders + 2)
        self.do(doors.LOAD_EXTENTS, account)

    def need_instrument(self, number: int) -> None:
        """Make room for an instrument number."""
        self.head["instruments_used"] = max(self.head["instruments_used"], number + 1)
        self._need("instruments", number + 1)
        count = len(self.instruments)
        self._need("sides", 2 * count)
        self._need("recent", self.head["recent_trades"] * count)
        for name in ("dirty", "trades"):
            self._need(name, 4 * count)

    def symbol_number(self, symbol: str) -> int:
        """The row of a symbol, which it keeps for good: private events of an instrument outlive it."""
        number = self._symbol_numbers.get(symbol)
        if number is None:
            number = self._symbol_numbers[symbol] = len(self._symbol_numbers) + 1
            self._need("symbols", number + 1)
            self.symbols[number] = np.frombuffer(symbol.encode("ascii", "replace").ljust(40, b"\0"), "<i8")
            self.head["symbols_used"] = number + 1
        return number

    def symbol_at(self, number: int) -> str:
        """The symbol of a row."""
        return bytes(self.symbols[number].tobytes()).rstrip(b"\0").decode("ascii", "replace")

    # --- Sessions -----------------------------------------------------------------------------------------------------

    def open_session(self, wire: Format) -> int:
        """A row for a new connection."""
        self._last_uid += 1
        row = self._free_sessions.pop() if self._free_sessions else self._last_session + 1
        self._last_session = max(self._last_session, row)
        for name in ("sessions", "groups"):
            self._need(name, 2 * row + 2)
        self.sessions[row] = 0
        self.sessions[row]["uid"], self.sessions[row]["wire"] = self._last_uid, wire is Format.MSGPACK
        return row

    def close_session(self, row: int) -> None:
        """The connection is gone."""
        self.leave_private(row)
        self.sessions[row] = 0
        if row:
            self._free_sessions.append(row)

    def join_private(self, row: int) -> None:
        """The session holds the private stream of its account."""
        session = self.sessions[row]
        if row and not session["private"]:
            account = self.live[session["account"]]
            session["private"], session["next_holder"], account["first_holder"] = 1, account["first_holder"], row

    def leave_private(self, row: int) -> None:
        """It holds it no more."""
        session = self.sessions[row]
        if not session["private"]:
            return
        session["private"] = 0
        account = self.live[session["account"]]
        if account["first_holder"] == row:
            account["first_holder"] = session["next_holder"]
            return
        at = int(account["first_holder"])
        while self.sessions[at]["next_holder"] != row:
            at = int(self.sessions[at]["next_holder"])
        self.sessions[at]["next_holder"] = session["next_holder"]

    def holders(self, account: int) -> Iterator[int]:
        """The rows of the sessions that hold an account's private stream."""
        row = int(self.live[account]["first_holder"])
        while row:
            yield row
            row = int(self.sessions[row]["next_holder"])

    # --- Storing ------------------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Copies of everything that `load` needs."""
        head = {name: self.head[name] for name in HEAD_REMEMBERED}
        used = self._used()
        copies = {name: self._arrays[name][: used[name]].copy() for name in REMEMBERED}
        for name, links in LINKS.items():
            for link in links:
                copies[name][link] = 0
        return {"head": head, "tables": copies}

    def _used(self) -> dict[str, int]:
        head = self.head
        instruments, chunks = head["instruments_used"], head["chunks_used"] + 1
        return {
            "accounts": head["accounts_used"], "orders": head["orders_used"] + 1,
            "positions": head["positions_used"] + 1, "instruments": instruments, "sides": 2 * instruments,
            "levels": head["levels_used"] + 1, "level_free": len(self._arrays["level_free"]),
            "records": CHUNK * chunks, "values": CHUNK * chunks, "next_chunk": chunks,
            "recent": instruments * head["recent_trades"], "symbols": head["symbols_used"],
        }  # fmt: skip

    def fitted(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Stored rows in today's layout: columns that are new are zero, columns that are gone are left out."""
        dtype = self._arrays[name].dtype
        if dtype.names is None:
            plain = np.zeros((len(rows), *self._arrays[name].shape[1:]), dtype)
            if plain.ndim == 1:
                plain[:] = rows.ravel()
            else:
                plain[:, : rows.shape[1]] = rows
            return plain
        fitted = np.zeros(len(rows), dtype)
        for column in set(dtype.names) & set(rows.dtype.names or ()):
            fitted[column] = rows[column]
        return fitted

    def load(self, head: dict[str, int], tables: dict[str, NDArray[Any]]) -> None:
        """Take over what was dumped; these tables must be empty. The instruments are entered by who knows their names."""
        self._spare_commands = self._spare_events = 0
        for name, value in head.items():
            self.head[name] = value
        for name, rows in tables.items():
            self._need(name, len(rows))
            self._arrays[name][: len(rows)] = rows
        if head["accounts_used"]:
            self.need_account(head["accounts_used"] - 1)
        if head["instruments_used"]:
            self.need_instrument(head["instruments_used"] - 1)
        for number in range(1, head["symbols_used"]):
            self._symbol_numbers[self.symbol_at(number)] = number
        for row in np.flatnonzero(tables["orders"]["id"]).tolist():
            self.do(doors.HASH_ORDER, row)
        for row in np.flatnonzero(tables["positions"]["account"]).tolist():
            self.do(doors.HASH_POSITION, row)


def warm_up() -> bool:
    """Load the compiled door of the gateway, compiling it when it is not in the cache. True when it was compiled."""
    Tables(GatewayConfig(), {}, [], first_ref=1).do(doors.GATHER)
    return JIT and bool(doors.run.stats.cache_misses)
