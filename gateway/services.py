"""What the gateway asks of others: the chain's desk and the meters' office. The node hands them in; without them it says so."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.messages import Code, CoinAddress, RequestError

Answer = Callable[[int | RequestError], None]
"""Takes a result, or why there is none. Called once, on the gateway's thread."""


class Desk(Protocol):
    """Deposits and withdrawals on a chain."""

    def addresses(self, account: int) -> list[CoinAddress]:
        """Where the account's deposits go."""

    def set_home(self, account: int, address: str) -> None:
        """Note the account's own address. Raises RequestError for one that is none, or another one than before."""

    def withdrawal(self, account: int, coin: int, amount_micros: int, to: str, claim: bool) -> NDArray[np.void]:
        """The command (COMMAND) of a withdrawal. Raises RequestError when it is not allowed."""


class Meters(Protocol):
    """Takes providers' reports."""

    def report(self, account: int, data: bytes, answer: Answer) -> None:
        """Take a report, durable before `answer` is called with the number of its records."""


class NoDesk:
    """An exchange without a chain."""

    def addresses(self, account: int) -> list[CoinAddress]:
        """Raises RequestError(NOT_AVAILABLE)."""
        raise RequestError(Code.NOT_AVAILABLE, "this exchange takes no stablecoins from a chain")

    def set_home(self, account: int, address: str) -> None:
        """Raises RequestError(NOT_AVAILABLE)."""
        self.addresses(account)

    def withdrawal(self, account: int, coin: int, amount_micros: int, to: str, claim: bool) -> NDArray[np.void]:
        """Raises RequestError(NOT_AVAILABLE)."""
        raise RequestError(Code.NOT_AVAILABLE, "this exchange pays out nothing to a chain")


class NoMeters:
    """An exchange without settlement."""

    def report(self, account: int, data: bytes, answer: Answer) -> None:
        """Refuse at once."""
        answer(RequestError(Code.NOT_AVAILABLE, "this exchange takes no reports"))
