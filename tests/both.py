"""The engine and its slow twin, made with the same limits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.engine import Engine
from engine.state import Limits
from tests.oracle import Exchange

LIMITS = Limits(max_accounts=64, max_instruments=64, max_open_orders_per_account=1_000)


def make_engine(**limits: int) -> Engine:
    return Engine(replace(LIMITS, **limits))


def make_twin(**limits: int) -> Exchange:
    known = replace(LIMITS, **limits)
    return Exchange(known.max_accounts, known.max_instruments, known.max_open_orders_per_account)


MAKERS: tuple[Callable[..., Any], ...] = (make_twin, make_engine)
