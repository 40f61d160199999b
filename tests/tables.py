"""Scenarios as text tables: what is asked, and what must come of it.

    check('''
        sell A 5 @ 2601 as a1    -> new
        buy  B 3 @ 2601 ioc      -> new, trade 3 @ 2601 with A, A leaves 2
        buy  B 9 @ 2601 fok      -> rejected FOK_NOT_FILLABLE
        expect A net -3, X asks 2 @ 2601
    ''')

Each table runs on the engine and on its slow twin. A line is a command, then `->` and what it brings about: each event,
in order, none left out. A phrase says as much of an event as matters. Without `->` the command must be accepted. A line
that ends in `->` or a comma goes on in the next.

Book X (terms in TERMS) is listed before the table starts. An account first met in a line that is not `open` is opened
with RICH_MICROS and certified for RICH_LOTS in X; `open` makes one that has nothing. Books are called X, Y or Z, accounts
by the other capital letters, orders anything else.

    open A | deposit A 500 | withdraw A 500 | payout A 500 | nominate A 10 [in Y]
    list Y [fee 500] [rebate 200] [bond 250000] [max 3000] [ref 2600] [unit 8000] [from 0] [gate 1000] [bands]
    buy|sell A 5 @ 2601|market|[@ 2601] stop 2600 [ioc|fok|gtc|gtg|gtd till 900] [post|slide] [reduce] [session 7]
        [show 2] [min 2] [deadline 900] [tag 7] [group 7] [cid 7] [stp_taker|stp_maker|stp_both|stp_decrement]
        [stp_group 7] [in Y] [as label]
    amend label [qty 7] [@ 2602] [stop 2600] [requeue] [by B] | cancel|expire label [by B]
    mass_cancel A [buy|sell] [in Y] [session 7] [tag 7] [group 7]
    quote A buy|sell 5 @ 2601 group 1 level 2 [post|slide] [in Y]
    mmp A group 1 lots 5 fills 2 window 9 [freeze 9] | reset A group 1
    cancel_after A tag 7 till 900 | dead_man A tag 7 | lock A | unlock A | limits A [size 5] [net 9] [orders 3]
    status Y auction|... | bands Y [ref 2600] [band 100000] [collar 1000] [dynamic 1000] | indicate Y | halt | resume
    close Y | deliver A B 5 [refund 10] [damages 20] [in Y] | delist Y | cycle | tick
    transfer A B 500 | lien A 500 | lift A 500 [pay B] | freeze A | thaw A
    issue P A 7 | retire P A 7 | move P A B 7     (shares of the pool P)
    raw kind 99 account 3 ...          any command, field by field
    clock 900                          the time of the lines that follow, in ns
    expect A cash 5, A net -3 in Y, house 12, X bids 3+4 @ 2600 2 @ 2599, X last 2600, X asks none, X closed,
        X buy_stops 5 @ 2610, X auction, label shown 2, label leaves 5
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.types import (
    ANY_SIDE,
    COMMAND,
    LISTING,
    MONEY,
    TRANSFER,
    UNCHANGED,
    EventKind,
    Flag,
    Kind,
    OrdType,
    Reason,
    Side,
    Status,
    TimeInForce,
)
from tests.both import MAKERS
from tests.oracle import MONEY_KINDS

RICH_MICROS = 1_000_000_000_000
RICH_LOTS = 1_000
BOOK_NAMES = "XYZ"
TERMS = {
    "lot_tick_micros": 8_000,
    "max_price": 100_000,
    "reference_price": 2_600,
    "gate_ns": 1_000_000,
    "taker_fee_ppm": 500,
    "maker_rebate_ppm": 200,
    "bond_ppm": 250_000,
}

# A word of an order that stands alone, and what it sets. A new order feature is a line here or in VALUES.
FLAGS: dict[str, tuple[str, int]] = {
    "ioc": ("time_in_force", TimeInForce.IOC),
    "fok": ("time_in_force", TimeInForce.FOK),
    "gtc": ("time_in_force", TimeInForce.GTC),
    "gtg": ("time_in_force", TimeInForce.GTG),
    "market": ("ord_type", OrdType.MARKET),
    "post": ("flags", Flag.POST_ONLY),
    "requeue": ("flags", Flag.REQUEUE),
    "slide": ("flags", Flag.SLIDE),
    "reduce": ("flags", Flag.REDUCE_ONLY),
    "stp_taker": ("flags", Flag.STP_EXPIRE_TAKER),
    "stp_maker": ("flags", Flag.STP_EXPIRE_MAKER),
    "stp_both": ("flags", Flag.STP_EXPIRE_BOTH),
    "stp_decrement": ("flags", Flag.STP_DECREMENT),
    "gtd": ("time_in_force", TimeInForce.GTD),
    "buy": ("side", Side.BUY),
    "sell": ("side", Side.SELL),
}
# A word that is followed by a number, and the field of the command which that sets.
VALUES = {
    "@": "price",
    "qty": "qty",
    "session": "session",
    "refund": "refund_micros",
    "damages": "damages_micros",
    "fee": "taker_fee_ppm",
    "rebate": "maker_rebate_ppm",
    "bond": "bond_ppm",
    "max": "max_price",
    "ref": "reference_price",
    "unit": "lot_tick_micros",
    "from": "open_ns",
    "gate": "gate_ns",
    "band": "band_ppm",
    "collar": "collar_ppm",
    "dynamic": "dynamic_ppm",
    "till": "expire_ns",
    "window": "expire_ns",
    "freeze": "deadline_ns",
    "deadline": "deadline_ns",
    "min": "min_qty",
    "show": "show_qty",
    "fills": "show_qty",
    "stop": "stop_price",
    "tag": "tag",
    "level": "tag",
    "orders": "tag",
    "group": "group",
    "stp_group": "stp_group",
    "cid": "cl_ord_id",
    "size": "qty",
    "lots": "qty",
    "net": "price",
}
EXTENSION = {"stop_price", "show_qty", "min_qty", "expire_ns", "deadline_ns", "tag", "stp_group", "cl_ord_id"}
# The first word of an event's phrase: its kind, and the field that a bare number means.
EVENTS: dict[str, tuple[EventKind, str]] = {
    "rejected": (EventKind.REJECTED, "order_id"),
    "new": (EventKind.NEW, "leaves_qty"),
    "trade": (EventKind.TRADE, "qty"),
    "canceled": (EventKind.CANCELED, "leaves_qty"),
    "replaced": (EventKind.REPLACED, "leaves_qty"),
    "opened": (EventKind.ACCOUNT_OPENED, "account"),
    "deposited": (EventKind.DEPOSITED, "amount_micros"),
    "withdrawn": (EventKind.WITHDRAWN, "amount_micros"),
    "nominated": (EventKind.NOMINATED, "lots"),
    "paid_out": (EventKind.PAID_OUT, "amount_micros"),
    "listed": (EventKind.LISTED, "instrument"),
    "closed": (EventKind.CLOSED, "instrument"),
    "due": (EventKind.DELIVERY_DUE, "lots"),
    "bond_released": (EventKind.BOND_RELEASED, "amount_micros"),
    "delivered": (EventKind.DELIVERED, "lots"),
    "delisted": (EventKind.DELISTED, "instrument"),
    "rebate": (EventKind.REBATE_PAID, "amount_micros"),
    "cycle": (EventKind.CYCLE_CLOSED, "lots"),
    "triggered": (EventKind.TRIGGERED, "leaves_qty"),
    "prevented": (EventKind.PREVENTED, "qty"),
    "refreshed": (EventKind.REFRESHED, "qty"),
    "kept": (EventKind.QUOTE_KEPT, "leaves_qty"),
    "duplicate": (EventKind.DUPLICATE, "leaves_qty"),
    "mmp_triggered": (EventKind.MMP_TRIGGERED, "qty"),
    "mmp_set": (EventKind.MMP_SET, "qty"),
    "mmp_reset": (EventKind.MMP_RESET, "contra_account"),
    "dead_man_set": (EventKind.DEAD_MAN_SET, "contra_order_id"),
    "locked": (EventKind.ACCOUNT_LOCKED, "account"),
    "unlocked": (EventKind.ACCOUNT_UNLOCKED, "account"),
    "limits": (EventKind.LIMITS_SET, "qty"),
    "status": (EventKind.STATUS_CHANGED, "qty"),
    "bands": (EventKind.BAND_SET, "price"),
    "auction": (EventKind.AUCTION_PRICE, "qty"),
    "halted": (EventKind.EXCHANGE_HALTED, "reason"),
    "resumed": (EventKind.EXCHANGE_RESUMED, "reason"),
    "transferred": (EventKind.TRANSFERRED, "contra_amount_micros"),
    "lien": (EventKind.LIEN_TAKEN, "frozen_micros"),
    "lifted": (EventKind.LIEN_LIFTED, "frozen_micros"),
    "frozen": (EventKind.FROZEN, "lots"),
    "shares": (EventKind.SHARES_CHANGED, "lots"),
    "split": (EventKind.SPLIT_PAID, "contra_amount_micros"),
}
# A word in an event's phrase that is followed by a number. Any field's own name does as well.
PARTS = {
    "@": "price",
    "leaves": "leaves_qty",
    "cum": "cum_qty",
    "held": "held_micros",
    "fee": "fee_micros",
    "fee_due": "fee_due_micros",
    "released": "released_micros",
    "due_paid": "due_paid_micros",
    "escrow": "escrow_micros",
    "bond": "bond_micros",
    "cash": "amount_micros",
    "contra_cash": "contra_amount_micros",
    "fees": "fees_micros",
    "fees_due": "fees_due_micros",
    "refund": "refund_micros",
    "damages": "damages_micros",
    "shortfall": "shortfall_micros",
    "contra_leaves": "contra_leaves_qty",
    "contra_cum": "contra_cum_qty",
    "shows": "contra_leaves_qty",
    "surplus": "leaves_qty",
    "group": "contra_account",
    "window": "contra_order_id",
    "until": "contra_order_id",
    "freeze": "order_id",
    "fills": "cum_qty",
    "was": "cum_qty",
    "low": "qty",
    "high": "leaves_qty",
}
ACCOUNT_PARTS = ("cash", "held", "rebate", "open_orders", "frozen")
POSITION_PARTS = ("net", "capacity", "open_buy", "open_sell", "escrow", "fees_due", "bond")


SPECIAL_PARTS = ("flags", "group", "tag", "stp_group", "expire_ns", "show_qty", "shown", "level")


def check(text: str, **limits: int) -> None:
    """Run a table on the engine and on the twin, with these limits. An AssertionError names the line."""
    for make in MAKERS:
        Table(make(**limits)).run(text)


def lines_of(text: str) -> Iterable[str]:
    """The lines that say something, without comments, those that go on joined."""
    line = ""
    for raw_line in text.splitlines():
        line += raw_line.partition("#")[0].strip()
        if line.endswith((",", "->")):
            line += " "
        elif line:
            yield line
            line = ""
    assert not line, f"{line!r} does not go on"


def number(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None


Maker = Callable[[list[str]], NDArray[np.void]]


class Table:
    """One run of a table on one exchange."""

    def __init__(self, exchange: Any) -> None:
        self.exchange = exchange
        self.accounts: dict[str, int] = {}
        self.books: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.clock_ns = 1
        self.seen: list[dict[str, int]] = []  # the events of the last command
        self.verbs: dict[str, Maker] = {
            "open": self.open,
            "deposit": self.money(Kind.DEPOSIT),
            "withdraw": self.money(Kind.WITHDRAW),
            "payout": self.money(Kind.PAYOUT),
            "nominate": self.nominate,
            "list": self.list_book,
            "buy": self.order(Side.BUY),
            "sell": self.order(Side.SELL),
            "amend": self.amend,
            "cancel": self.about_order(Kind.CANCEL),
            "expire": self.about_order(Kind.EXPIRE),
            "quote": self.quote,
            "mmp": self.about_account(Kind.SET_MMP),
            "reset": self.about_account(Kind.RESET_MMP),
            "cancel_after": self.about_account(Kind.CANCEL_AFTER),
            "dead_man": self.about_account(Kind.DEAD_MAN),
            "lock": self.about_account(Kind.LOCK),
            "unlock": self.about_account(Kind.UNLOCK),
            "limits": self.about_account(Kind.SET_LIMITS),
            "status": self.status,
            "bands": self.bands,
            "indicate": self.about_book(Kind.INDICATE),
            "halt": lambda _: command(Kind.HALT_ALL),
            "resume": lambda _: command(Kind.RESUME_ALL),
            "mass_cancel": self.mass_cancel,
            "close": self.about_book(Kind.CLOSE),
            "delist": self.about_book(Kind.DELIST),
            "deliver": self.deliver,
            "cycle": lambda _: command(Kind.CLOSE_CYCLE),
            "tick": lambda _: command(Kind.TICK),
            "transfer": self.transfer,
            "lien": self.money(Kind.LIEN),
            "lift": self.lift,
            "freeze": lambda words: command(Kind.FREEZE, TRANSFER, account=self.accounts[words[0]], flags=1),
            "thaw": lambda words: command(Kind.FREEZE, TRANSFER, account=self.accounts[words[0]]),
            "issue": self.issue(1),
            "retire": self.issue(-1),
            "move": self.move_shares,
            "raw": self.raw,
        }

    def run(self, text: str) -> None:
        self.do("list X")
        for line in lines_of(text):
            try:
                self.line(line)
            except AssertionError as error:
                seen = "\n".join(str({k: v for k, v in event.items() if v}) for event in self.seen)
                raise AssertionError(
                    f"{line!r} on {type(self.exchange).__name__}: {error}\nits events:\n{seen}"
                ) from None

    def line(self, line: str) -> None:
        asked, arrow, expected = (part.strip() for part in line.partition("->"))
        verb, _, rest = asked.partition(" ")
        if verb == "clock":
            self.clock_ns = int(rest)
        elif verb == "expect":
            for phrase in rest.split(","):
                self.expect_state(phrase.split())
        else:
            self.do(asked)
            if arrow:
                self.expect_events([phrase.split() for phrase in expected.split(",")])
            else:
                assert not any(event["kind"] == EventKind.REJECTED for event in self.seen), "was rejected"

    # Commands

    def do(self, asked: str) -> None:
        verb, *words = asked.split()
        if verb != "open":
            self.meet(words)
        label = words[words.index("as") + 1] if "as" in words else None
        self.apply(self.verbs[verb](words))
        if label and self.seen[0]["kind"] == EventKind.NEW:
            self.labels[label], self.owners[label] = self.seen[0]["order_id"], words[0]

    def apply(self, row: NDArray[np.void]) -> None:
        row["seq"], row["ts_ns"] = self.exchange.applied_seq + 1, self.clock_ns
        events = self.exchange.apply(row.view(COMMAND)).copy()
        self.seen = [as_dict(events[i : i + 1]) for i in range(len(events))]

    def meet(self, words: list[str]) -> None:
        """Open and fund the accounts that a line names for the first time."""
        for word in words:
            if len(word) == 1 and word.isupper() and word not in self.accounts and word not in BOOK_NAMES:
                self.apply(self.open([word]))
                self.apply(self.money(Kind.DEPOSIT)([word, str(RICH_MICROS)]))
                if "X" in self.books:
                    self.apply(self.nominate([word, str(RICH_LOTS)]))

    def open(self, words: list[str]) -> NDArray[np.void]:
        account = self.accounts.setdefault(words[0], len(self.accounts) + 1)
        return command(Kind.OPEN_ACCOUNT, TRANSFER, account=account)

    def money(self, kind: Kind) -> Maker:
        def make(words: list[str]) -> NDArray[np.void]:
            return command(kind, TRANSFER, account=self.accounts[words[0]], amount_micros=int(words[1]))

        return make

    def nominate(self, words: list[str]) -> NDArray[np.void]:
        book = self.book_of(words)
        return command(Kind.NOMINATE, TRANSFER, account=self.accounts[words[0]], instrument=book, lots=int(words[1]))

    def list_book(self, words: list[str]) -> NDArray[np.void]:
        book = self.books.setdefault(words[0], len(self.books) + 1)
        return command(Kind.LIST, LISTING, instrument=book, **TERMS | self.fields(words[1:]))

    def order(self, side: Side) -> Maker:
        def make(words: list[str]) -> NDArray[np.void]:
            fields = {"side": side, "account": self.accounts[words[0]], "qty": int(words[1])}
            fields |= self.fields(words[2:])
            if "stop_price" in fields:
                fields.setdefault("ord_type", OrdType.STOP_LIMIT if "price" in fields else OrdType.STOP)
            return command(Kind.NEW_ORDER, instrument=self.book_of(words), **extended(fields))

        return make

    def amend(self, words: list[str]) -> NDArray[np.void]:
        fields = {"price": UNCHANGED, "qty": UNCHANGED} | self.fields(words[1:])
        return command(Kind.AMEND, **self.target(words), **extended(fields))

    def about_order(self, kind: Kind) -> Maker:
        return lambda words: command(kind, **self.target(words))

    def about_account(self, kind: Kind) -> Maker:
        return lambda words: command(kind, account=self.accounts[words[0]], **self.fields(words[1:]))

    def quote(self, words: list[str]) -> NDArray[np.void]:
        fields = {"account": self.accounts[words[0]], "instrument": self.book_of(words), "qty": int(words[2])}
        return command(Kind.QUOTE, **fields | self.fields([words[1], *words[3:]]))

    def status(self, words: list[str]) -> NDArray[np.void]:
        return command(Kind.SET_STATUS, instrument=self.books[words[0]], qty=Status[words[1].upper()])

    def bands(self, words: list[str]) -> NDArray[np.void]:
        fields = {"reference_price": TERMS["reference_price"]} | self.fields(words[1:])
        return command(Kind.SET_BAND, LISTING, instrument=self.books[words[0]], **fields)

    def target(self, words: list[str]) -> dict[str, int]:
        """The order that a label names, as its owner or as another account."""
        owner = words[words.index("by") + 1] if "by" in words else self.owners.get(words[0], "")
        order_id = self.labels.get(words[0], number(words[0]))
        assert order_id is not None, f"no order is called {words[0]}"
        return {"account": self.accounts[owner], "order_id": order_id}

    def mass_cancel(self, words: list[str]) -> NDArray[np.void]:
        book = self.book_of(words) if "in" in words else 0
        fields = {"side": ANY_SIDE} | self.fields(words[1:])
        return command(Kind.MASS_CANCEL, account=self.accounts[words[0]], instrument=book, **fields)

    def about_book(self, kind: Kind) -> Maker:
        return lambda words: command(kind, instrument=self.books[words[0]])

    def deliver(self, words: list[str]) -> NDArray[np.void]:
        who = {"account": self.accounts[words[0]], "contra_account": self.accounts[words[1]]}
        fields = {"lots": int(words[2]), "instrument": self.book_of(words)} | self.fields(words[3:])
        return command(Kind.DELIVER, TRANSFER, **who, **fields)

    def transfer(self, words: list[str]) -> NDArray[np.void]:
        return command(Kind.TRANSFER, TRANSFER, amount_micros=int(words[2]), **self.pair(words))

    def lift(self, words: list[str]) -> NDArray[np.void]:
        payee = self.accounts[words[3]] if "pay" in words else 0
        who = {"account": self.accounts[words[0]], "contra_account": payee}
        return command(Kind.LIFT_LIEN, TRANSFER, amount_micros=int(words[1]), **who)

    def issue(self, sign: int) -> Maker:
        return lambda words: command(Kind.ISSUE_SHARES, TRANSFER, lots=sign * int(words[2]), **self.pair(words))

    def move_shares(self, words: list[str]) -> NDArray[np.void]:
        pool = self.accounts[words[0]]
        return command(Kind.MOVE_SHARES, TRANSFER, asset=pool, lots=int(words[3]), **self.pair(words[1:]))

    def pair(self, words: list[str]) -> dict[str, int]:
        return {"account": self.accounts[words[0]], "contra_account": self.accounts[words[1]]}

    def raw(self, words: list[str]) -> NDArray[np.void]:
        fields = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        kind = fields.pop("kind")
        layout = next(layout for layout in (COMMAND, TRANSFER, LISTING) if fields.keys() <= set(layout.names or ()))
        return command(kind, layout, **fields)

    def book_of(self, words: list[str]) -> int:
        return self.books[words[words.index("in") + 1] if "in" in words else "X"]

    def fields(self, words: Iterable[str]) -> dict[str, int]:
        """What the words of a command after its fixed ones set."""
        rest, found = iter(words), dict[str, int]()
        for word in rest:
            if word in FLAGS:
                name, value = FLAGS[word]
                found[name] = found.get(name, 0) | value if name == "flags" else value
            elif word in ("in", "as", "by"):
                next(rest)
            else:
                found[VALUES[word]] = int(next(rest, "nothing"))
        return found

    # Expectations

    def expect_events(self, phrases: list[list[str]]) -> None:
        """One phrase for each event; a phrase that begins with an account says more of the trade before it."""
        if phrases == [["nothing"]]:
            phrases = []
        place = -1
        for words in phrases:
            if words[0] in EVENTS:
                place += 1
                assert place < len(self.seen), f"there is no event for {' '.join(words)!r}"
                self.expect_event(self.seen[place], words)
            else:
                self.expect_part_of_trade(self.seen[place], words)
        assert place + 1 == len(self.seen), f"{place + 1} events are expected, there are {len(self.seen)}"

    def expect_event(self, event: dict[str, int], words: list[str]) -> None:
        kind, main_field = EVENTS[words[0]]
        got = EventKind(event["kind"])
        assert got == kind, f"{' '.join(words)!r} is expected, there is {got.name} {Reason(event['reason']).name}"
        rest = iter(words[1:])
        for word in rest:
            if number(word) is not None:
                name, value = main_field, int(word)
            elif word == "with":
                name, value = "contra_account", self.accounts[next(rest)]
            elif word in self.accounts:
                name, value = "account", self.accounts[word]
            elif word in self.labels:
                name, value = "order_id", self.labels[word]
            elif kind == EventKind.STATUS_CHANGED and word.upper() in Status.__members__:
                name, value = "qty", Status[word.upper()]
            elif word.upper() in Reason.__members__:
                name, value = "reason", Reason[word.upper()]
            else:
                name, value = PARTS.get(word, word), int(next(rest))
            assert event[name] == value, f"{' '.join(words)!r}: {name} is {event[name]}, not {value}"

    def expect_part_of_trade(self, event: dict[str, int], words: list[str]) -> None:
        account = self.accounts[words[0]]
        prefix = "" if event["account"] == account else "contra_"
        assert event[prefix + "account"] == account, f"{words[0]} is not in this trade"
        for word, value in zip(words[1::2], words[2::2], strict=True):
            name = prefix + PARTS[word]
            assert event[name] == int(value), f"{' '.join(words)!r}: {name} is {event[name]}"

    def see_order(self, dump: dict[str, Any], order_id: int, what: str) -> int:
        """A part of a working order; -1 for one that is not."""
        if what in SPECIAL_PARTS:
            plain = (0,) * (len(SPECIAL_PARTS) - 1) + (-1,)
            return int(dump["special"].get(order_id, plain)[SPECIAL_PARTS.index(what)])
        queues = [queue for book in dump["books"].values() for side in ("bids", "asks") for _, queue in book[side]]
        leaves = {order_id: leaves for queue in queues for order_id, _, leaves, *_ in queue}
        return int(leaves.get(order_id, -1))

    def expect_state(self, words: list[str]) -> None:
        dump, (what, *rest) = self.exchange.dump(), words
        if what == "house":
            got, expected = dump["house_fees_micros"], int(rest[0])
        elif what in self.books:
            got, expected = expect_book(dump["books"].get(self.books[what]), rest)
        elif what in self.labels:
            got, expected = self.see_order(dump, self.labels[what], rest[0]), int(rest[1])
        elif rest[0] in ACCOUNT_PARTS:
            account = dump["accounts"][self.accounts[what]]
            got, expected = account[ACCOUNT_PARTS.index(rest[0])], int(rest[1])
        else:
            key = (self.accounts[what], self.book_of(rest))
            position = dump["positions"].get(key, (0,) * len(POSITION_PARTS))
            got, expected = position[POSITION_PARTS.index(rest[0])], int(rest[1])
        assert got == expected, f"{' '.join(words)!r}: it is {got}"


def extended(fields: dict[str, int]) -> dict[str, int]:
    """With the flag without which some of the fields are not read."""
    return fields | {"flags": fields.get("flags", 0) | Flag.EXTENDED} if fields.keys() & EXTENSION else fields


def expect_book(book: dict[str, Any] | None, words: list[str]) -> tuple[Any, Any]:
    """What a phrase about a book sees, and what it expects."""
    what, *rest = words
    if what == "free":
        return book, None
    assert book is not None, "the book is not listed"
    if what.upper() in Status.__members__:
        return book["status"], Status[what.upper()]
    if what == "last":
        return book["last_price"], -1 if rest == ["none"] else int(rest[0])
    levels = [] if rest == ["none"] else " ".join(rest).split()
    expected = [(int(levels[i + 2]), [int(q) for q in levels[i].split("+")]) for i in range(0, len(levels), 3)]
    return [(price, [leaves for _, _, leaves, *_ in queue]) for price, queue in book[what]], expected


def command(kind: int, layout: np.dtype[np.void] = COMMAND, /, **fields: int) -> NDArray[np.void]:
    """An array of one command in the layout of its body."""
    row = np.zeros(1, layout)
    row["kind"] = kind
    for name, value in fields.items():
        row[name] = value
    return row


def as_dict(event: NDArray[np.void]) -> dict[str, int]:
    """An array of one event as plain ints under the names of its body."""
    layout = MONEY if int(event["kind"][0]) in MONEY_KINDS else event.dtype
    record = event.view(layout)[0]
    return dict(zip(record.dtype.names or (), record.item(), strict=True))
