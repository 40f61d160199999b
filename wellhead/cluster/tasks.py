"""What the parts of a cluster do with their tasks."""

import asyncio
from collections.abc import Iterable


async def first_failure(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Wait until one of them ends, and raise what ended it."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
