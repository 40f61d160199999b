"""What can be seen of the twin, and what must hold after every command."""

from collections import Counter
from typing import Any

from engine.types import MAX_MONEY_MICROS, MAX_POSITION_LOTS, MAX_QTY, SLOT_BITS, Side, Status
from tests.oracle.parts import Book, Order
from tests.oracle.trading import Trading, quote_key

PLAIN = (0, 0, 0, 0, 0, 0, 0, -1)


class Looking(Trading):
    """Beside everything: it changes nothing."""

    def dump(self) -> dict[str, Any]:
        """Everything that can be seen, in the form of `Engine.dump`."""
        return {
            "applied_seq": self.applied_seq,
            "event_seq": self.event_seq,
            "now_ns": self.now_ns,
            "house_fees_micros": self.house,
            "deposits_micros": self.deposits,
            "withdrawals_micros": self.withdrawals,
            "cycle": self.cycle,
            "accounts": {
                n: (a.cash, a.held, a.rebate, a.open_orders, a.frozen, a.is_frozen) for n, a in self.accounts.items()
            },
            "withdrawing": {n: a.withdrawing for n, a in self.accounts.items() if a.withdrawing},
            "shares": {pool: self.shares[pool] for pool in sorted(self.shares)},
            "positions": {key: tuple(vars(position).values()) for key, position in self.positions.items()},
            "books": {number: dump_book(book) for number, book in self.books.items()},
            "halted": self.halted,
            "locked": sorted(self.locked),
            "limits": self.dump_limits(),
            "special": {order.order_id: order.special for order in self.orders.values() if order.special != PLAIN},
            "timers": dict(self.timers),
            "mmp": {
                key: (p.window_ns, p.lots, p.fills, p.frozen, list(p.counted), p.freeze_ns, p.until_ns)
                for key, p in self.protections.items()
            },
            "client_ids": {key: (entry.order_id, entry.then_ns) for key, entry in self.client_ids.items()},
        }

    def dump_limits(self) -> dict[int, tuple[int, int, int]]:
        rows = {n: (a.most_qty, a.most_net, a.most_orders) for n, a in self.accounts.items()}
        return {number: row for number, row in rows.items() if any(row)}

    def check(self) -> None:
        """Assert what must hold after every command."""
        try:
            self.check_money()
            self.check_positions()
            self.check_orders()
            self.check_extras()
            for number, book in self.books.items():
                check_book(number, book)
        except AssertionError:
            print(self.dump())
            raise

    def check_money(self) -> None:
        accounts, positions = self.accounts.values(), self.positions.values()
        total = (
            sum(a.cash + a.held + a.frozen for a in accounts) + sum(p.escrow + p.bond for p in positions) + self.house
        )
        assert total == self.deposits - self.withdrawals, "conservation"
        assert min(self.house, self.deposits, self.withdrawals) >= 0
        assert self.deposits <= MAX_MONEY_MICROS
        assert list(self.accounts) == list(range(1, len(self.accounts) + 1))
        for number, account in self.accounts.items():
            assert min(vars(account).values()) >= 0, (number, account)
            assert account.open_orders <= self.max_open_orders_per_account, (number, account)

    def check_positions(self) -> None:
        nets: Counter[int] = Counter()
        for (number, instrument), p in self.positions.items():
            where = (number, instrument, p)
            assert number in self.accounts and instrument in self.books, where
            book = self.books[instrument]
            assert min(p.capacity, p.open_buy, p.open_sell, p.escrow, p.fees_due, p.bond) >= 0, where
            assert p.fees_due <= p.escrow, where
            assert p.net < 0 or p.escrow == 0, where
            assert p.net + p.open_buy <= MAX_POSITION_LOTS and p.capacity <= MAX_POSITION_LOTS, where
            assert -p.net <= p.capacity, where
            if book.status != Status.CLOSED:
                assert p.net + p.capacity >= p.open_sell, where
            elif p.net >= 0:
                assert p.bond == 0, where
            for side, expected in ((Side.BUY, p.open_buy), (Side.SELL, p.open_sell)):
                assert expected == sum(o.leaves for o in self.working_in(instrument, side) if o.account == number), (
                    where
                )
            nets[instrument] += p.net
        assert not any(nets.values()), nets

    def check_orders(self) -> None:
        working = [order for number in self.books for side in Side for order in self.working_in(number, side)]
        assert {order.order_id for order in working} == self.orders.keys()
        assert len(working) == len(self.orders)
        slots = [order_id % (1 << SLOT_BITS) for order_id in self.orders]
        assert not set(slots) & set(self.free_slots) and len(set(slots)) == len(slots)
        held: Counter[int] = Counter()
        count: Counter[int] = Counter()
        for order in working:
            assert order.leaves >= 1 and order.leaves + order.cum == order.qty <= MAX_QTY, order
            book = self.books[order.instrument]
            expected = book.hold(order.price, order.leaves) if order.side == Side.BUY else 0
            assert order.held == expected, order
            assert not order.gone and order.account not in self.locked, order
            held[order.account] += order.held
            count[order.account] += 1
        for number, account in self.accounts.items():
            assert (account.held, account.open_orders) == (held[number], count[number]), (number, account)

    def check_extras(self) -> None:
        """Quotes, timers and client order ids."""
        by_key = {quote_key(order): order for order in self.orders.values() if order.level >= 0}
        assert by_key == self.quotes
        quotes = Counter(key[:2] for key in self.quotes)
        assert all(count <= self.max_quotes_per_book for count in quotes.values()), quotes
        timers = Counter(account for account, _ in self.timers)
        assert all(count <= self.max_timers_per_account for count in timers.values()), timers
        assert dict(self.remembered) == self.client_ids


def check_book(number: int, book: Book) -> None:
    if book.status == Status.CONTINUOUS:
        assert not book.is_crossed, f"book {number} is crossed or locked"
        assert book.due_stop() is None, f"a stop is due in book {number}"
    for levels in book.sides:
        for price, queue in levels.items():
            assert queue and 0 <= price <= book.terms.max_price, (number, price)
            assert all(order.price == price and not order.waits for order in queue.values()), (number, price)
            for order in queue.values():
                fits = 1 <= order.shown <= min(order.show_qty, order.leaves) if order.show_qty else order.shown == 0
                assert fits, order
    if book.status == Status.CLOSED:
        assert not any(book.sides) and not any(book.stops), f"book {number} is closed but not empty"


def dump_book(book: Book) -> dict[str, Any]:
    bids, asks = (
        [
            (price, [(o.order_id, o.account, o.leaves, o.cum, o.held) for o in queue.values()])
            for price, queue in side.items()
        ]
        for side in book.sides
    )
    return {
        "status": int(book.status),
        "last_price": book.last_price,
        "bids": bids,
        "asks": asks,
        "reference_price": book.terms.reference_price,
        "low_price": book.low,
        "high_price": book.high,
        "collar_ppm": book.terms.collar_ppm,
        "dynamic_ppm": book.terms.dynamic_ppm,
        "buy_stops": dump_stops(book.stops[Side.BUY]),
        "sell_stops": dump_stops(book.stops[Side.SELL]),
    }


def dump_stops(stops: list[Order]) -> list[Any]:
    """By stop price, in the order in which they would be triggered."""
    queues: dict[int, list[Any]] = {}
    for o in stops:
        row = (o.order_id, o.account, o.leaves, o.held, o.price, o.ord_type, o.time_in_force)
        queues.setdefault(o.stop_price, []).append(row)
    return list(queues.items())
