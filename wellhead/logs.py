"""How a running node writes its log: lines for people, or one JSON object a line for machines."""

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from gateway.logs import hide_secrets

QUIET = ("websockets", "asyncio")  # their debug lines show whole messages, log-ons too


def name_peer(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor: whose connection it is, where the websockets library hands over the connection itself."""
    connection = event.pop("websocket", None)
    if connection is not None:
        with contextlib.suppress(ReferenceError, AttributeError, TypeError):  # it is gone, or was never open
            event["ip"], event["port"] = connection.remote_address[:2]
    return event


def set_up(level: int = logging.WARNING, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Everything that any part logs goes to `stream` (stderr), structured and without secrets."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        name_peer,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]
    # Tracebacks are made into text before secrets are taken out of it, and without the values of variables.
    last: list[Any] = [structlog.processors.format_exc_info, hide_secrets]
    last.append(
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
