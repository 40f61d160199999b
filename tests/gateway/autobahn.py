"""The cases of the Autobahn test suite against an echo on our connection class, beside the library's own echo.

    python -m tests.gateway.autobahn [CASE...]

Runs the suite's case files through kosoku, which needs no Python 2. Left out are 12 and 13: compression is not offered.
"""

import asyncio
import collections
import logging
import sys
from typing import Any
from unittest import mock

from kosoku import FailureError, run_fuzzingclient
from websockets.asyncio.server import ServerConnection, serve

from gateway.connection import Connection

MAX_BYTES = 2**25
"""Cases of 9 send 16 MiB in one message, and 65,536 fragments; a gateway's limits are lower."""


class TypedConnection(Connection):
    """Hands each message over by itself, and knows whether it was text."""

    is_text = False

    def _take_message(self, payload: bytes, is_text: bool) -> None:
        self.is_text = is_text
        super()._take_message(payload, is_text)
        self._hand_over()


async def our_echo(connection: ServerConnection) -> None:
    """Each message back as it came."""
    assert isinstance(connection, TypedConnection)
    connection.attach(lambda messages: connection.send_messages(messages, text=connection.is_text))
    await connection.wait_closed()


async def library_echo(connection: ServerConnection) -> None:
    """The same with the library alone."""
    async for message in connection:
        await connection.send(message)


async def run(cases: list[str] | None, *, ours: bool = True) -> list[Any]:
    """The verdict on each case."""
    options: dict[str, Any] = {"create_connection": TypedConnection} if ours else {}
    handler = our_echo if ours else library_echo
    with mock.patch("gateway.connection.MAX_FRAGMENTS", MAX_BYTES):
        async with serve(
            handler, "127.0.0.1", 0, compression=None, max_size=MAX_BYTES, ping_interval=None, **options
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            try:
                return await run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, ["12.*", "13.*"], 4)
            except FailureError as failure:
                return list(failure.results)


def verdict(result: Any) -> tuple[str, str]:
    """What the suite says of the messages, and of the close."""
    return result.behavior.value, result.behavior_close.value


def main() -> None:
    logging.disable(logging.ERROR)
    for ours in (True, False):
        results = asyncio.run(run(sys.argv[1:] or None, ours=ours))
        counts = collections.Counter(map(verdict, results))
        print(f"{'our connection class' if ours else 'the library alone'}: {len(results)} cases")
        for (behavior, close), count in counts.most_common():
            ids = (
                ""
                if behavior == close == "OK"
                else " ".join(r.case_id for r in results if verdict(r) == (behavior, close))
            )
            print(f"  {count:4} {behavior}, close {close}  {ids}")


if __name__ == "__main__":
    main()
