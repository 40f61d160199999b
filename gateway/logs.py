"""Events for the operator's log, as a name and fields instead of a sentence. What is secret never gets there.

They go through `logging`, so a program that sets nothing up sees warnings only; `wellhead serve` renders them.
"""

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET_NAMES = frozenset({"sig", "signature", "private_key", "secret", "password", "token", "seed", "authorization"})
HIDDEN = "[hidden]"
# Base64 of 32 or 64 bytes, hex of as many: keys and signatures, whoever wrote them into a text. And passwords in addresses
# of servers: scheme://user:password@host, or password=... as PostgreSQL has it.
SECRET_TEXT = re.compile(
    r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)(?![A-Za-z0-9+/=])"
    r"|(?<![0-9a-fA-F])(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{64})(?![0-9a-fA-F])"
    r"|(?<=://)[^\s@]+(?=@)"
    r"|(?<=password=)(?:'[^']*'|[^\s'\"]+)"
)
PUBLIC_NAMES = frozenset({"root", "batch_id", "chain", "state_hash"})


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: takes secrets out of fields and texts."""
    for name, value in event.items():
        event[name] = HIDDEN if name in SECRET_NAMES else value if name in PUBLIC_NAMES else hidden(value)
    return event


def hidden(value: Any) -> Any:
    """A value without what looks like a key or a signature, also inside lists and mappings."""
    if isinstance(value, str):
        return SECRET_TEXT.sub(HIDDEN, value)
    if isinstance(value, bytes):
        return hidden(value.decode("ascii", "replace"))
    if isinstance(value, dict):
        return {name: HIDDEN if name in SECRET_NAMES else hidden(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(inner) for inner in value]
    return value


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of events: `log.info("logon", key=..., ip=...)`."""
    found: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            hide_secrets,
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return found
