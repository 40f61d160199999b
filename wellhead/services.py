"""What a node does for its gateway beside the market: meters' reports, and the money desk of a chain."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.messages import Code, CoinAddress, RequestError, bad_field
from gateway.services import Answer
from settlement.meter import MeterError
from settlement.process import Bookkeeping


class MetersOffice:
    """Takes reports on a thread of its own: each is forced to the disk before it is acknowledged."""

    def __init__(self, settlement: Bookkeeping, now_ns: Callable[[], int]) -> None:
        self._settlement = settlement
        self._now_ns = now_ns
        self._thread = ThreadPoolExecutor(1, "meters")
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self, account: int, data: bytes, answer: Answer) -> None:
        """Take a report of this provider. On the loop's thread."""
        task = asyncio.get_running_loop().create_task(self._take(account, data, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, account: int, data: bytes, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        try:
            answer(await loop.run_in_executor(self._thread, self._settlement.report, data, self._now_ns(), account))
        except MeterError as error:
            answer(bad_field("report", str(error)))
        except Exception as error:
            answer(RequestError(Code.INTERNAL, f"the report could not be stored: {type(error).__name__}"))

    async def close(self) -> None:
        """Finish what is under way."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)
        self._thread.shutdown()


class ChainDesk:
    """The money desk of `wellhead/custody.py` in the gateway's words."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def addresses(self, account: int) -> list[CoinAddress]:
        """Where the account's deposits go."""
        return [
            CoinAddress(
                one.token, one.symbol, one.chain, one.chain_id, one.vault, one.coin, one.decimals, one.ref
            )
            for one in self._desk.addresses(account)
        ]  # fmt: skip

    def set_home(self, account: int, address: str) -> None:
        """Note the account's own address. Raises RequestError."""
        from wellhead.custody import MoneyError  # noqa: PLC0415 - web3 takes a second to import

        try:
            self._desk.set_home(account, address)
        except MoneyError as error:
            raise bad_field("home", str(error)) from error

    def withdrawal(self, account: int, coin: int, amount_micros: int, to: str, claim: bool) -> NDArray[np.void]:
        """The WITHDRAW command. Raises RequestError."""
        from wellhead.custody import MoneyError  # noqa: PLC0415 - web3 takes a second to import

        try:
            command: NDArray[np.void] = self._desk.withdrawal(account, coin, amount_micros, to, claim)
        except MoneyError as error:
            if error.code == "BAD_AMOUNT":
                raise RequestError(Code.BAD_AMOUNT, str(error)) from error
            raise bad_field({"NOT_A_TOKEN": "coin"}.get(error.code, "to"), str(error)) from error
        return command
