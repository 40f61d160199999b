"""The engine and its slow twin, made with the same limits."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from engine.engine import Engine
from engine.state import Limits
from tests.oracle import Exchange

LIMITS = Limits(max_accounts=64, max_instruments=64, max_open_orders_per_account=1_000)


TWIN_LIMITS = {
    "max_accounts",
    "max_instruments",
    "max_open_orders_per_account",
    "max_quotes_per_book",
    "max_timers_per_account",
    "max_mmp_groups",
    "max_client_ids",
}
"""Limits that a rule mentions; the others are sizes of pools, which the twin has not."""


def make_engine(**limits: int) -> Engine:
    return Engine(replace(LIMITS, **limits))


def make_twin(**limits: int) -> Exchange:
    standard = {field.name: getattr(LIMITS, field.name) for field in fields(LIMITS)}
    return Exchange(**{name: value for name, value in (standard | limits).items() if name in TWIN_LIMITS})


MAKERS: tuple[Callable[..., Any], ...] = (make_twin, make_engine)
