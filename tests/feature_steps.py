"""What random steps do with the features of docs/engine.md beyond plain orders; by what they belong to."""

from collections.abc import Callable
from dataclasses import dataclass

from engine.types import LISTING, Flag, Kind, OrdType, Status, TimeInForce
from tests.oracle import Exchange
from tests.step import Command, Step, open_book, price_of, target
from tests.tables import command, extended

Fields = dict[str, int]


@dataclass(frozen=True)
class Feature:
    deeds: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()


def gtd(step: Step, price: int, now_ns: int) -> Fields:
    return {"time_in_force": TimeInForce.GTD, "expire_ns": now_ns + step.qty}


def minimum(step: Step, price: int, now_ns: int) -> Fields:
    return {"min_qty": 1 + step.qty // 2}


def deadline(step: Step, price: int, now_ns: int) -> Fields:
    return {"deadline_ns": now_ns + (step.pick == 0) - (step.pick == 1)}


def show(step: Step, price: int, now_ns: int) -> Fields:
    return {"show_qty": 1 + step.qty // 3, "time_in_force": TimeInForce.GTG}


def stop(step: Step, price: int, now_ns: int) -> Fields:
    ord_type = OrdType.STOP if step.pick % 3 == 0 else OrdType.STOP_LIMIT
    return {
        "ord_type": ord_type,
        "stop_price": max(1, price + step.pick % 4 - 1),
        "price": 0 if ord_type == OrdType.STOP else price,
    }


def flag(bit: int) -> Callable[[Step, int, int], Fields]:
    return lambda step, price, now_ns: {"flags": bit, "stp_group": step.pick % 3} if bit >= 16 else {"flags": bit}


EXTRAS: dict[str, Callable[[Step, int, int], Fields]] = {
    "gtd": gtd,
    "min": minimum,
    "deadline": deadline,
    "slide": flag(Flag.SLIDE),
    "show": show,
    "stop": stop,
    "reduce": flag(Flag.REDUCE_ONLY),
    "stp_taker": flag(Flag.STP_EXPIRE_TAKER),
    "stp_maker": flag(Flag.STP_EXPIRE_MAKER),
    "stp_both": flag(Flag.STP_EXPIRE_BOTH),
    "stp_decrement": flag(Flag.STP_DECREMENT),
    "group": lambda step, price, now_ns: {"group": 1 + step.pick % 2},
    "tag": lambda step, price, now_ns: {"tag": 1 + step.pick % 2},
    "cid": lambda step, price, now_ns: {"cl_ord_id": 1 + step.pick},
}


def expire(step: Step, twin: Exchange, now_ns: int) -> Command:
    dated = [order for order in twin.orders.values() if 0 < order.expire_ns <= now_ns + (step.pick == 0)]
    if not dated:
        return command(Kind.EXPIRE, **target(step, twin)[0])
    order = dated[step.pick % len(dated)]
    return command(Kind.EXPIRE, account=order.account, order_id=order.order_id)


def set_band(step: Step, twin: Exchange, now_ns: int) -> Command:
    ppm = (0, 0, 10_000, 100_000, 300_000, 1_000_000)
    return command(
        Kind.SET_BAND,
        LISTING,
        instrument=step.book,
        reference_price=price_of(step, twin, step.book),
        band_ppm=(0, 0, 0, 300_000, 1_000_000)[step.pick % 5],
        collar_ppm=ppm[step.qty % 6],
        dynamic_ppm=ppm[step.money % 6],
    )


def set_limits(step: Step, twin: Exchange, now_ns: int) -> Command:
    some = {"qty": 12, "price": 30, "tag": 9} if step.pick < 2 else {}
    return command(Kind.SET_LIMITS, account=step.account, **some)


def set_status(step: Step, twin: Exchange, now_ns: int) -> Command:
    still = [number for number, book in twin.books.items() if book.status not in (Status.CONTINUOUS, Status.CLOSED)]
    if still and step.pick < 7:
        return command(Kind.SET_STATUS, instrument=still[step.pick % len(still)], qty=Status.CONTINUOUS)
    wanted = (Status.AUCTION, Status.AUCTION, Status.PRE_OPEN, Status.HALTED, Status.CANCEL_ONLY, Status.CONTINUOUS)
    return command(Kind.SET_STATUS, instrument=step.book, qty=wanted[step.qty % 6])


def indicate(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.INDICATE, instrument=step.book)


def halt(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.RESUME_ALL if twin.halted or step.pick > 2 else Kind.HALT_ALL)


def lock(step: Step, twin: Exchange, now_ns: int) -> Command:
    if twin.locked or step.pick > 5:
        return command(Kind.UNLOCK, account=min(twin.locked, default=step.account))
    return command(Kind.LOCK, account=step.account)


def unlock(step: Step, twin: Exchange, now_ns: int) -> Command:
    return command(Kind.UNLOCK, account=min(twin.locked, default=step.account))


def quote(step: Step, twin: Exchange, now_ns: int) -> Command:
    instrument = open_book(step, twin, now_ns)
    key: tuple[int, ...] = (step.account, instrument, 1 + step.pick % 2, step.side, step.pick % 3)
    if twin.quotes and step.pick % 3:
        key = list(twin.quotes)[step.pick % len(twin.quotes)]
        instrument = key[1]
    found = twin.quotes.get(key)
    qty = (found.leaves, step.qty, found.leaves, found.leaves - 1, 0)[step.money % 5] if found else step.qty
    price = found.price if found and step.ticks % 2 else price_of(step, twin, instrument)
    flags = {"post": Flag.POST_ONLY, "ioc": Flag.SLIDE, "fok": Flag.STP_EXPIRE_MAKER}.get(step.style, 0)
    who = {"account": key[0], "instrument": instrument, "group": key[2], "side": key[3], "tag": key[4]}
    return command(Kind.QUOTE, price=price, qty=qty, flags=flags, session=step.pick % 3, **who)


def set_mmp(step: Step, twin: Exchange, now_ns: int) -> Command:
    fields = {"qty": 2 * step.qty, "show_qty": 1 + step.pick % 4, "expire_ns": 1 + step.money % 50}
    fields["deadline_ns"] = (0, 1 + step.money % 20)[step.qty % 2]
    if step.pick == 9:
        fields = {}
    return command(Kind.SET_MMP, account=step.account, group=1 + step.side, **fields)


def reset_mmp(step: Step, twin: Exchange, now_ns: int) -> Command:
    frozen = [key for key, protection in twin.protections.items() if protection.frozen and step.pick % 2]
    account, group = frozen[0] if frozen else (step.account, 1 + step.side)
    return command(Kind.RESET_MMP, account=account, group=group)


def cancel_after(step: Step, twin: Exchange, now_ns: int) -> Command:
    expire_ns = 0 if step.pick == 9 else now_ns + step.qty
    return command(Kind.CANCEL_AFTER, account=step.account, tag=step.pick % 3, expire_ns=expire_ns)


def dead_man(step: Step, twin: Exchange, now_ns: int) -> Command:
    due = [key for key, expire_ns in twin.timers.items() if expire_ns <= now_ns + (step.pick == 0)]
    account, tag = due[step.pick % len(due)] if due else (step.account, step.pick % 3)
    return command(Kind.DEAD_MAN, account=account, tag=tag)


def again(step: Step, twin: Exchange, now_ns: int) -> Command:
    """A NEW_ORDER that was sent before, sometimes with another quantity."""
    if not twin.client_ids:
        return command(Kind.TICK)
    key = list(twin.client_ids)[-1 - step.pick % min(3, len(twin.client_ids))]
    entry = twin.client_ids[key]
    fields = dict(zip(twin.body_fields, entry.body, strict=True))
    fields["qty"] += step.pick == 5
    row = command(Kind.NEW_ORDER, account=key[0], **extended(fields))
    row["cl_ord_id"] = key[1]
    return row


FEATURE_MAKERS = {
    "expire": expire, "set_band": set_band, "set_limits": set_limits, "set_status": set_status, "indicate": indicate,
    "halt": halt, "lock": lock, "unlock": unlock, "quote": quote, "set_mmp": set_mmp, "reset_mmp": reset_mmp,
    "cancel_after": cancel_after, "dead_man": dead_man, "again": again,
}  # fmt: skip
FEATURES = {
    "terms": Feature(
        ("expire", "expire", "set_band", "set_band", "set_limits"), ("gtd", "min", "deadline", "slide", "gtd")
    ),
    "status": Feature(("set_status", "set_status", "set_status", "halt", "lock", "unlock", "unlock", "unlock")),
    "stp": Feature((), ("stp_taker", "stp_maker", "stp_both", "stp_decrement", "stp_maker", "stp_decrement")),
    "iceberg": Feature((), ("show", "show", "show")),
    "stops": Feature((), ("stop", "stop", "stop", "reduce", "reduce")),
    "quotes": Feature(
        (*("quote",) * 12, "set_mmp", "reset_mmp", "reset_mmp", "cancel_after", "dead_man"), ("group", "tag")
    ),
    "client_ids": Feature(("again",), ("cid",)),
    "auctions": Feature(("indicate",)),
}
