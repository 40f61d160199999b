"""A sender's frames on their way: numbered, sent in order, and sent again until the journal has them.

Only the journal says that a frame is in. The server's acknowledgement says where in the input it stands; once the
journal has passed that place without it, it came too early (one before it was lost), and all from the oldest on go again.
What was never acknowledged goes again after a while. Repeats do no harm: the frame's number is known (engine/sequencing.py).
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.jetstream import Publisher, place_of
from engine.records import joined
from engine.sequencing import MAX_FRAME_COMMANDS, Frame
from engine.types import COMMAND

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 4.0
REFUSED_WAIT_S = 0.25


@dataclass(slots=True)
class Flight:
    """A frame that was sent at least once, perhaps."""

    number: int
    data: bytes
    acknowledged: "asyncio.Future[int] | None" = None


class Sender:
    """Frames of one name. `submit` takes commands at any time; frames grow while the window is full."""

    def __init__(self, publisher: Publisher, subject: str, name: str, window: int = 16) -> None:
        self.name = name
        self._publisher = publisher
        self._subject = subject
        self._window = window
        self._flights: deque[Flight] = deque()
        self._unsent = 0  # of the flights, those at the end that are to be sent
        self._pending: deque[NDArray[np.void]] = deque()
        self._number = 0
        self._wait_s = FIRST_WAIT_S
        self._look_at = 0.0
        self._wake = asyncio.Event()
        self.repeated = 0  # frames that were sent again

    @property
    def under_way(self) -> int:
        """Frames that the journal does not have, as far as is known."""
        return len(self._flights) + bool(self._pending)

    def submit(self, commands: NDArray[np.void]) -> None:
        """Take commands in, in order."""
        self._pending.append(commands)
        self._wake.set()

    def confirmed(self, number: int) -> None:
        """The journal has the frame."""
        while self._flights and self._flights[0].number <= number:
            flight = self._flights.popleft()
            if flight.acknowledged is not None:
                flight.acknowledged.cancel()
        self._unsent = min(self._unsent, len(self._flights))
        self._wait_s = FIRST_WAIT_S
        self._look_at = time.monotonic() + self._wait_s
        self._wake.set()

    def covered(self, in_seq: int) -> None:
        """The journal covers the input up to here; frames that stand before it and are not in will not be."""
        if self._flights and (stored := place_of(self._flights[0].acknowledged)) is not None and stored <= in_seq:
            self._again()

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            self._form()
            while self._unsent:
                flight = self._flights[-self._unsent]
                self._unsent -= 1
                flight.acknowledged = await self._publisher.send(self._subject, flight.data)
            try:
                async with asyncio.timeout(max(0.01, self._look_at - time.monotonic()) if self._flights else None):
                    await self._wake.wait()
            except TimeoutError:
                self._look()
            self._wake.clear()

    def _form(self) -> None:
        """Make frames of what is pending, as far as the window lets."""
        while self._pending and len(self._flights) < self._window:
            parts = [self._pending.popleft()]
            count = len(parts[0])
            while self._pending and count + len(self._pending[0]) <= MAX_FRAME_COMMANDS:
                parts.append(self._pending.popleft())
                count += len(parts[-1])
            commands = joined(parts, COMMAND)
            if count > MAX_FRAME_COMMANDS:
                self._pending.appendleft(commands[MAX_FRAME_COMMANDS:])
                commands = commands[:MAX_FRAME_COMMANDS]
            self._number += 1
            if not self._flights:
                self._look_at = time.monotonic() + self._wait_s
            self._flights.append(Flight(self._number, Frame(self.name, self._number, commands).pack()))
            self._unsent += 1

    def _look(self) -> None:
        """Time has passed without the journal: send again what no server acknowledged."""
        if time.monotonic() < self._look_at:
            return
        refused = any(flight.acknowledged is not None and flight.acknowledged.done() for flight in self._flights)
        self._wait_s = REFUSED_WAIT_S if refused else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._look_at = time.monotonic() + self._wait_s
        if any(place_of(flight.acknowledged) is None for flight in self._flights):
            self._again()

    def _again(self) -> None:
        self.repeated += len(self._flights) - self._unsent
        for flight in self._flights:
            flight.acknowledged = None
        self._unsent = len(self._flights)
        self._wake.set()
