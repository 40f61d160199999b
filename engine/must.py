"""How an invariant is said to be broken."""

from typing import Any


class InvariantError(AssertionError):
    """Something that must always hold does not; the message names the place."""


def must(condition: Any, message: str, *values: Any) -> None:
    """Raise InvariantError with the message, the values put in, where the condition does not hold."""
    if not condition:
        raise InvariantError(message.format(*values))
