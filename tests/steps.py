"""Random commands that mean something: steps, and what turns one into a command.

A step says what is to happen in relative terms (the third working order, two ticks above the middle, all the cash), so that
a shorter list of the same steps still makes sense and a failing one can be shrunk. `command_for` reads the twin to make
the command of a step. Steps come from hypothesis (`steps`) or, faster and longer, from a seed (`random_steps`).
"""

import random
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.types import (
    ANY_SIDE,
    COMMAND,
    LISTING,
    MAX_MONEY_MICROS,
    MAX_POSITION_LOTS,
    MAX_PRICE_TICKS,
    MAX_QTY,
    TRANSFER,
    UNCHANGED,
    Flag,
    Kind,
    OrdType,
    Side,
    Status,
    TimeInForce,
)
from tests.feature_steps import EXTRAS, FEATURE_MAKERS, FEATURES
from tests.oracle import LISTINGS, TRANSFERS, Exchange
from tests.step import Command, Step, open_book, price_of, target
from tests.tables import EXTENSION, command, extended

ACCOUNTS, BOOKS = 4, 3
# What may happen, as often as it stands here.
DEEDS = (
    ["order"] * 60 + ["cancel"] * 6 + ["amend"] * 12 + ["deposit"] * 2 + ["nominate"] * 2 + ["list"] * 2
    + ["deliver"] * 5 + ["delist"] * 2 + ["mass_cancel", "withdraw", "payout", "close", "cycle", "tick", "open"]
    + ["transfer", "lien", "lift_lien", "freeze", "issue", "issue", "move_shares"]
)  # fmt: skip
STYLES: dict[str, dict[str, int]] = {
    "gtg": {},
    "gtc": {"time_in_force": TimeInForce.GTC},
    "ioc": {"time_in_force": TimeInForce.IOC},
    "fok": {"time_in_force": TimeInForce.FOK},
    "post": {"flags": Flag.POST_ONLY},
    "market": {"ord_type": OrdType.MARKET, "time_in_force": TimeInForce.IOC},
    "market_fok": {"ord_type": OrdType.MARKET, "time_in_force": TimeInForce.FOK},
}
STYLE_WEIGHTS = ["gtg"] * 16 + [
    "gtc",
    "gtc",
    "ioc",
    "ioc",
    "fok",
    "fok",
    "post",
    "post",
    "market",
    "market",
    "market_fok",
]
# Lots that are worth much and little, with and without fees, books of a few prices and of all there can be.
TERMS: list[dict[str, int]] = [
    {"lot_tick_micros": 8_000, "max_price": 200, "taker_fee_ppm": 500, "maker_rebate_ppm": 200, "bond_ppm": 250_000},
    {"lot_tick_micros": 1, "max_price": 12, "taker_fee_ppm": 10_000, "maker_rebate_ppm": 10_000, "bond_ppm": 333_333},
    {"lot_tick_micros": 3, "max_price": 8_192, "taker_fee_ppm": 0, "maker_rebate_ppm": 0, "bond_ppm": 0},
    {"lot_tick_micros": 4_000_000, "max_price": 200, "taker_fee_ppm": 9_999, "maker_rebate_ppm": 1, "bond_ppm": 1},
    {"lot_tick_micros": 3_051, "max_price": MAX_PRICE_TICKS, "taker_fee_ppm": 77, "maker_rebate_ppm": 5, "bond_ppm": 5},
    {"lot_tick_micros": 8_000, "max_price": 2, "taker_fee_ppm": 5_000, "maker_rebate_ppm": 100, "bond_ppm": 10**6},
]
MONEY_WEIGHTS = [0, 1, 7, 1_000, 10**6, 10**6, 10**9, 10**9, 10**12, 10**15]
QTY_WEIGHTS = [1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 20, 25, 99, MAX_QTY]
RANGES: dict[str, list[Any]] = {
    "do": DEEDS,
    "extra": [""],
    "also": [""],
    "account": [*range(1, ACCOUNTS + 1)],
    "book": [1, 1, 2, 3],
    "side": [0, 1],
    "ticks": [0, 0, 1, -1, 2, -2, 3, -3, 100, -101],
    "qty": QTY_WEIGHTS,
    "style": STYLE_WEIGHTS,
    "pick": [*range(12)],
    "money": MONEY_WEIGHTS,
    "wait_ns": [1, 1, 1, 0, 5, 40],
}
EDGES = sorted(
    {
        sign * value + by
        for value in (0, 1 << 8, 1 << 24, 1 << 31, 1 << 32, 1 << 53, MAX_QTY, MAX_POSITION_LOTS, MAX_MONEY_MICROS)
        for sign in (1, -1)
        for by in (-1, 0, 1)
    }
    | {(1 << 63) - 1, (1 << 63) - 2, -1 << 63, (-1 << 63) + 1, 255, ANY_SIDE, MAX_PRICE_TICKS, MAX_PRICE_TICKS + 1}
)


WRECKS = [(place, edge) for place in range(1, 26) for edge in EDGES]


def ranges(features: Collection[str]) -> dict[str, list[Any]]:
    """What a step may be when these features are asked for too."""
    deeds = [deed for name in sorted(features) for deed in FEATURES[name].deeds]
    extras = [extra for name in sorted(features) for extra in FEATURES[name].extras]
    plain = [""] * (max(4, len(extras)) if extras else 1)
    return RANGES | {"do": DEEDS + deeds, "extra": plain + extras * 2, "also": plain * 2 + extras}


def steps(at_most: int, features: Collection[str] = tuple(FEATURES)) -> st.SearchStrategy[list[Step]]:
    """Lists of steps, for hypothesis."""
    wreck = st.one_of(*[st.none()] * 12, st.sampled_from(WRECKS))
    chosen = {name: st.sampled_from(values) for name, values in ranges(features).items()}
    step = st.builds(Step, wreck=wreck, **chosen)
    # Left to itself hypothesis makes lists of about five; a long one that fails shrinks through the first strategy.
    return st.one_of(st.lists(step, max_size=at_most), st.lists(step, min_size=at_most // 2, max_size=at_most))


def random_steps(
    seed: int, count: int, wrecked: float = 0.05, features: Collection[str] = tuple(FEATURES)
) -> Iterator[Step]:
    """Steps from a seed."""
    rng, values = random.Random(seed), ranges(features)
    for _ in range(count):
        wreck = rng.choice(WRECKS) if rng.random() < wrecked else None
        yield Step(wreck=wreck, **{name: rng.choice(some) for name, some in values.items()})


def opening(terms: tuple[int, ...], cash: tuple[int, ...]) -> Iterator[Command]:
    """Open an account for each amount of cash and list a book for each of the terms; certify all but the last account."""
    for account, amount in enumerate(cash, 1):
        yield command(Kind.OPEN_ACCOUNT, TRANSFER, account=account)
        yield command(Kind.DEPOSIT, TRANSFER, account=account, amount_micros=amount)
    for instrument, number in enumerate(terms, 1):
        yield listing(instrument, number, now_ns=0)
        for account in range(1, len(cash)):
            yield command(Kind.NOMINATE, TRANSFER, account=account, instrument=instrument, lots=100 * account)


def listing(instrument: int, number: int, now_ns: int) -> Command:
    terms = TERMS[number % len(TERMS)]
    times = {"open_ns": now_ns - now_ns % 7, "gate_ns": now_ns + (900 if number % 5 == 4 else 1_000_000)}
    return command(Kind.LIST, LISTING, instrument=instrument, reference_price=terms["max_price"] // 2, **terms, **times)


def command_for(step: Step, twin: Exchange, now_ns: int) -> Command:
    """The command of a step, in the state the twin is in, with its place in the log and time."""
    row = MAKERS[step.do](step, twin, now_ns)
    row["ts_ns"] = now_ns
    if step.wreck:
        wreck(row, *step.wreck)
    row["seq"] = twin.applied_seq + 1
    return row.view(COMMAND)


def wreck(row: Command, place: int, edge: int) -> None:
    names = row.dtype.names or ()
    name = names[place % len(names)]
    # Cut to the width of the field, so that a narrow one takes an edge of its own.
    row[name] = np.array(edge, np.int64).astype(row.dtype[name].base)
    if name in EXTENSION and edge % 2:
        row["flags"] |= np.uint32(Flag.EXTENDED)


def order(step: Step, twin: Exchange, now_ns: int) -> Command:
    instrument = open_book(step, twin, now_ns)
    fields = {"price": price_of(step, twin, instrument)} | STYLES[step.style]
    if "ord_type" in fields:
        fields["price"] = 0
    for name in filter(None, dict.fromkeys((step.extra, step.also))):
        more = EXTRAS[name](step, fields["price"], now_ns)
        fields |= more | {"flags": fields.get("flags", 0) | more.get("flags", 0)}
    who = {"account": step.account, "instrument": instrument, "session": step.pick % 3}
    return command(Kind.NEW_ORDER, side=step.side, qty=step.qty, **who, **extended(fields))


def cancel(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.CANCEL, **target(step, twin)[0])


def amend(step: Step, twin: Exchange, now_ns: int) -> Command:
    who, total = target(step, twin)
    working = twin.orders.get(who["order_id"])
    price = price_of(step, twin, working.instrument) if working and step.qty % 2 else UNCHANGED
    qty = [UNCHANGED, total - 1, total - step.qty, total + step.qty, step.qty][step.money % 5]
    requeue = Flag.REQUEUE if step.style == "gtc" else 0
    fields = {"price": price, "qty": qty, "flags": requeue}
    if working and working.waits and step.pick % 2:
        fields |= {"stop_price": price_of(step, twin, working.instrument), "price": UNCHANGED}
    return command(Kind.AMEND, **who, **extended(fields))


def mass_cancel(step: Step, twin: Exchange, now_ns: int) -> Command:
    side = (Side.BUY, Side.SELL, ANY_SIDE, ANY_SIDE)[step.pick % 4]
    instrument = step.book if step.ticks > 0 else 0
    fields = {"account": step.account, "instrument": instrument, "side": side, "session": step.qty % 3}
    fields |= {"tag": max(0, step.pick - 8), "group": max(0, step.pick % 5 - 2)}
    return command(Kind.MASS_CANCEL, **fields)


def open_account(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.OPEN_ACCOUNT, TRANSFER, account=len(twin.accounts) + step.ticks // 2 + 1)


def deposit(step: Step, twin: Exchange, now_ns: int) -> Command:
    fields = {"account": step.account, "amount_micros": step.money}
    if step.pick > 8:
        fields |= coins(step)
        fields["refund_micros"] = (0, step.money, step.money + 1)[step.pick % 3]
    return command(Kind.DEPOSIT, TRANSFER, **fields)


def coins(step: Step) -> dict[str, int]:
    """Money of the market most often, of a stablecoin sometimes, and of none that can be at times."""
    asset = (1, 2, -1)[step.pick % 3] if step.side else 0
    return {"asset": asset, "lots": step.qty % 4 - (step.pick == 0)}


def withdraw(step: Step, twin: Exchange, now_ns: int) -> Command:
    account = twin.accounts.get(step.account)
    cash = account.cash if account else 0
    amount = (cash, cash + 1, cash // 2, step.money)[step.pick % 4]
    return command(
        Kind.WITHDRAW, TRANSFER, account=step.account, amount_micros=amount, flags=step.pick % 4, **coins(step)
    )


def payout(step: Step, twin: Exchange, now_ns: int) -> Command:
    account = twin.accounts.get(step.account)
    aside = account.withdrawing if account else 0
    amount = (aside, aside + 1, aside // 2, step.money)[step.pick % 4]
    return command(Kind.PAYOUT, TRANSFER, account=step.account, amount_micros=amount, **coins(step))


def nominate(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(
        Kind.NOMINATE,
        TRANSFER,
        account=step.account,
        instrument=open_book(step, twin, now_ns),
        lots=min(10 * step.qty, MAX_QTY),
    )


def list_book(step: Step, twin: Exchange, now_ns: int) -> Command:
    free = [number for number in range(1, BOOKS + 1) if number not in twin.books]
    return listing(free[0] if free and step.ticks < 3 else step.book, step.pick, now_ns)


def close(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.CLOSE, instrument=step.book)


def delist(step: Step, twin: Exchange, now_ns: int) -> Command:
    closed = [number for number, book in twin.books.items() if book.status == Status.CLOSED]
    return command(Kind.DELIST, instrument=closed[step.pick % len(closed)] if closed else step.book)


def deliver(step: Step, twin: Exchange, now_ns: int) -> Command:
    """A delivery that is due, in whole or in part, with or without a refund and damages."""
    closed = {number for number, book in twin.books.items() if book.status == Status.CLOSED}
    shorts = [key for key, p in twin.positions.items() if p.net < 0 and key[1] in closed]
    provider, instrument = shorts[step.pick % len(shorts)] if shorts else (step.account, step.book)
    longs = [key[0] for key, p in twin.positions.items() if p.net > 0 and key[1] == instrument]
    receiver = longs[step.pick % len(longs)] if longs else step.account
    lots, refund = step.qty, 0
    if shorts and longs:
        position = twin.positions[provider, instrument]
        most = min(-position.net, twin.positions[receiver, instrument].net)
        lots = most if step.qty > 3 else min(step.qty, most)
        refund = position.escrow * lots // -position.net * (step.qty % 4) // 3
    who = {"account": provider, "contra_account": receiver, "instrument": instrument}
    damages = step.money if step.side else 0
    return command(Kind.DELIVER, TRANSFER, lots=lots, refund_micros=refund, damages_micros=damages, **who)


def other_account(step: Step) -> int:
    return (step.account + step.pick) % ACCOUNTS + 1


def transfer(step: Step, twin: Exchange, now_ns: int) -> Command:
    row = withdraw(step, twin, now_ns)
    row["kind"], row["contra_account"] = Kind.TRANSFER, other_account(step)
    return row


def lien(step: Step, twin: Exchange, now_ns: int) -> Command:
    row = withdraw(step, twin, now_ns)
    row["kind"] = Kind.LIEN
    return row


def lift_lien(step: Step, twin: Exchange, now_ns: int) -> Command:
    account = twin.accounts.get(step.account)
    frozen = account.frozen if account else 0
    amount = (frozen, frozen + 1, frozen // 2, step.money)[step.pick % 4]
    payee = other_account(step) if step.side else 0
    return command(
        Kind.LIFT_LIEN, TRANSFER, account=step.account, contra_account=payee, amount_micros=amount
    )  # fmt: skip


def freeze(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.FREEZE, TRANSFER, account=step.account, flags=int(step.pick > 8))


def issue(step: Step, twin: Exchange, now_ns: int) -> Command:
    """Shares of the accounts that sell most, made or retired."""
    pool = 1 + step.book % 2
    lots = -step.qty if step.ticks < 0 else step.qty * (1 if step.side else 999)
    return command(Kind.ISSUE_SHARES, TRANSFER, account=pool, contra_account=step.account, lots=lots)


def move_shares(step: Step, twin: Exchange, now_ns: int) -> Command:
    pool = 1 + step.book % 2
    held = twin.shares.get(pool, {}).get(step.account, 0)
    lots = held if step.pick > 6 else min(step.qty, held + 1)
    who = {"account": step.account, "contra_account": other_account(step), "asset": pool}
    return command(Kind.MOVE_SHARES, TRANSFER, lots=lots, **who)


def cycle(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.CLOSE_CYCLE)


def tick(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.TICK)


MAKERS = {
    "order": order, "cancel": cancel, "amend": amend, "mass_cancel": mass_cancel, "open": open_account,
    "deposit": deposit, "withdraw": withdraw, "payout": payout, "nominate": nominate, "list": list_book, "close": close,
    "deliver": deliver, "delist": delist, "cycle": cycle, "tick": tick, "transfer": transfer, "lien": lien,
    "lift_lien": lift_lien, "freeze": freeze, "issue": issue, "move_shares": move_shares,
    **FEATURE_MAKERS,
}  # fmt: skip


def describe(row: Command) -> str:
    """A command in words: its kind and what is not zero."""
    kind = int(row["kind"][0])
    body = row.view(TRANSFER if kind in TRANSFERS else LISTING if kind in LISTINGS else COMMAND)
    name = Kind(kind).name if kind in list(Kind) else str(kind)
    values = dict(zip(body.dtype.names or (), body[0].item(), strict=True))
    return name + "".join(f" {k}={v}" for k, v in values.items() if k != "kind" and np.any(v))
