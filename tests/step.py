"""A step of a random run, and the things it is relative to: books, prices, working orders."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.oracle import Exchange

Command = NDArray[np.void]


@dataclass(frozen=True)
class Step:
    do: str = "order"
    account: int = 1
    book: int = 1
    side: int = 0
    ticks: int = 0
    qty: int = 1
    style: str = "gtg"
    extra: str = ""  # what an order asks beside its style: a key of feature_steps.EXTRAS
    also: str = ""
    pick: int = 0
    money: int = 1
    wait_ns: int = 1
    wreck: tuple[int, int] | None = None  # a field, by its place in the layout, and an edge to put there


def open_book(step: Step, twin: Exchange, now_ns: int) -> int:
    """The book of the step; when it is not open another that is, nearly always."""
    open_books = [number for number, book in twin.books.items() if twin.takes_orders(book, now_ns)]
    if step.book in open_books or not open_books or step.pick == 11:
        return step.book
    return open_books[step.pick % len(open_books)]


def price_of(step: Step, twin: Exchange, instrument: int) -> int:
    """Some ticks from the middle of a book's prices, within what is allowed; a tick of a wide book is many."""
    book = twin.books.get(instrument)
    highest = int(book.terms.max_price) if book else 10
    return min(max(highest // 2 + step.ticks * max(1, highest // 200), 0), highest)


def target(step: Step, twin: Exchange) -> tuple[dict[str, int], int]:
    """A working order, the newest first, with its owner; sometimes as another account or one that was. And its total."""
    newest = list(twin.orders.values())[::-1]
    if step.pick == 11 or not newest:
        return {"account": step.account, "order_id": (step.qty << 24) + step.ticks}, 1
    found = newest[step.pick % len(newest)]
    return {"account": step.account if step.pick == 10 else found.account, "order_id": found.order_id}, found.qty
