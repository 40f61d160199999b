"""What the client asks about its account's past, its money and its capacity."""

from typing import Any, Literal

from msgspec import Struct

from wellhead.types import CoinAddress, PastFill, PastOrder, Price, Statement
from wellhead.wire import Codec

PAGE = 1_000
"""Rows that the server gives at once, at the most."""


class _PastOrders(Struct):
    orders: list[PastOrder]
    next: int | None


class _PastFills(Struct):
    fills: list[PastFill]
    next: int | None


class _Statements(Struct):
    statements: list[Statement]


class _Part(Struct):
    size: int
    data: str


class _Proof(Struct):
    file: str


class _Coins(Struct):
    coins: list[CoinAddress]


class _Done(Struct):
    seq: int


class _Records(Struct):
    records: int


class AccountRequests:
    """The part of `Client` for this. What moves money or takes a bond is not sent again when the connection was lost before
    the answer, but raises OutcomeUnknown: look at `balances`, or at the private events.
    """

    _codec: Codec

    async def _ask(self, fields: dict[str, Any], kind: Any, *, repeat: bool = True) -> Any:
        raise NotImplementedError

    # --- The past -----------------------------------------------------------------------------------------------------

    async def past_orders(self, sym: str | None = None, *, limit: int | None = 100) -> list[PastOrder]:
        """The account's finished orders, newest first: at least `limit` if there are as many, None for all. What one event
        ended stays together, so it may be a few more.
        """
        return await self._pages({"op": "orders.history"}, _PastOrders, "orders", sym, limit)

    async def fills(self, sym: str | None = None, *, limit: int | None = 100) -> list[PastFill]:
        """The account's fills, newest first; see `past_orders`."""
        return await self._pages({"op": "fills"}, _PastFills, "fills", sym, limit)

    async def _pages(
        self, fields: dict[str, Any], kind: Any, name: str, sym: str | None, limit: int | None
    ) -> list[Any]:
        found: list[Any] = []
        if sym is not None:
            fields["sym"] = sym
        while limit is None or len(found) < limit:
            fields["limit"] = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await self._ask(fields, kind)
            found += getattr(page, name)
            if page.next is None:
                break
            fields["before"] = page.next
        return found

    # --- What was settled ---------------------------------------------------------------------------------------------

    async def statements(self) -> list[Statement]:
        """The settled cycles, newest first, and what each came to for the account."""
        return list((await self._ask({"op": "statements"}, _Statements)).statements)

    async def statement(self, cycle: int, format: Literal["csv", "json"] = "csv") -> str:
        """The account's statement of a cycle, the whole file."""
        parts: list[str] = []
        offset, size = 0, 1
        while offset < size:
            fields = {"op": "statement", "cycle": cycle, "format": format, "offset": offset}
            part = await self._ask(fields, _Part)
            parts.append(part.data)
            offset, size = offset + len(part.data.encode()), part.size
        return "".join(parts)

    async def proof(self, cycle: int | None = None) -> str:
        """The proof that the account's net is under a cycle's root, the newest cycle's if none is named: the file that
        `wellhead settle check` reads.
        """
        fields = {"op": "proof"} | ({} if cycle is None else {"cycle": cycle})
        return str((await self._ask(fields, _Proof)).file)

    # --- Money and capacity -------------------------------------------------------------------------------------------

    async def deposit_addresses(self, home: str | None = None) -> list[CoinAddress]:
        """Where deposits go, for each stablecoin. `home` says, once and for good, which address is the account's own."""
        fields = {"op": "deposit.address"} | ({} if home is None else {"home": home})
        return list((await self._ask(fields, _Coins)).coins)

    async def withdraw(self, coin: int, amount: Price, to: str, *, claim: bool = False) -> int:
        """Pay out to an address; with `claim` it is not sent, but can be claimed from the vault. The answer is the command's
        place in the log.
        """
        fields = {"op": "withdraw", "coin": coin, "amount": self._codec.price(amount), "to": to, "claim": claim}
        return int((await self._ask(fields, _Done, repeat=False)).seq)

    async def transfer(self, to: str, amount: Price) -> int:
        """Move cash to another account of the same owner. The command's place in the log."""
        fields = {"op": "transfer", "to": to, "amount": self._codec.price(amount)}
        return int((await self._ask(fields, _Done, repeat=False)).seq)

    async def nominate(self, sym: str, lots: int) -> int:
        """Certify so many more lots for an hour, against a bond: they may be sold short. The command's place in the log."""
        return int((await self._ask({"op": "capacity.nominate", "sym": sym, "lots": lots}, _Done, repeat=False)).seq)

    async def report_delivery(self, report: bytes) -> int:
        """Hand in a meter's signed records, as `wellhead meter run` makes them; how many were taken."""
        return int((await self._ask({"op": "delivery.report", "report": report}, _Records)).records)
