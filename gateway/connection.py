"""A websocket connection that reads whole messages without the library's queue and tasks, and the library for the rest.

The library spends its time on frame objects and on waking a task for each message. Here `data_received` finds the frames
itself. It unmasks a complete, unfragmented data frame on the spot; everything else goes to the library: handshake,
pings, fragments, close, and what breaks the rules. The order of things:

1. Until the handshake's blank line the library gets every byte. What follows is held until the handler has called
   `attach`, so the library never stands inside a frame that it began before we looked. (Its buffer cannot tell: it is
   empty in the middle of a frame too.) Reading pauses when too much is held.
2. From then on the library gets one complete frame at a time, so it is always between two frames. Only what it refuses
   by the header alone (mask, opcode, length) it gets at once, because the rest of the frame may never come.
3. Messages gather and are handed over when the read ends, and before anything goes to the library: replies are then
   written before its pong or its close, and messages are never out of order.
4. Fragments come back from the library as frames and are joined here, with the limit on their number and the check of
   UTF-8 that the library has in the layer that is passed by. Their size is limited by the library.
5. When the connection fails or is closed by the peer, the rest is discarded.

Replies are framed here too, joined, and written at once; the library's own writes are never left half done, so the two
do not mix.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.frames import CONT, DATA_OPCODES, TEXT, CloseCode, Frame
from websockets.protocol import OPEN, Event

try:
    from websockets.speedups import apply_mask
except ImportError:  # where the library has no compiled part
    from websockets.utils import apply_mask

from gateway.frames import WHOLE, WHOLE_BINARY, WHOLE_TEXT, head

Receive = Callable[[list[bytes]], None]
"""Takes the messages of a read, in order. Called on the event loop; must not wait."""


class Taker(Protocol):
    """Takes whole frames from the bytes of a read, where it can, before they are made into messages."""

    def begin(self, data: bytes | bytearray) -> bool:
        """A read; False when nothing is to be taken from it."""

    def take(self, at: int, end: int) -> int:
        """Take frames of the read from `at` on; where the first one stands that is not taken."""

    def receive(self, messages: list[bytes]) -> None:
        """Messages that were not taken, in order. They may wait for `done`."""

    def done(self) -> None:
        """The read is done with."""


MAX_FRAGMENTS = 4_096  # of a message, as in the library
MAX_HELD_BYTES = 65_536  # before the handler has started
MAX_MESSAGES = 256  # handed over at once, so that what they cause is looked at before it is too much

END_OF_REQUEST = b"\r\n\r\n"
OPCODES = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))
MASKED, CLOSE = 0x80, 0x88
UINT64 = Struct("!Q")


class Connection(ServerConnection):
    """For `serve(create_connection=Connection, compression=None)`. The handler calls `attach` and then `wait_closed`;
    it must not call `recv`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._receive: Receive | None = None
        self._taker: Taker | None = None
        self._request_end = b""  # the last bytes of an incomplete request
        self._request_done = False
        self._rest = bytearray()  # an incomplete frame; before `attach`, all that is held
        self._fragments: list[bytes] = []
        self._joins_text = False
        self._messages: list[bytes] = []
        limit = self.protocol.max_message_size
        self._max_size = 2**63 if limit is None else limit

    def attach(self, receive: Receive, taker: Taker | None = None) -> None:
        """From now on messages go to `receive`, or frames and messages to a taker; those that came early first."""
        self._taker = taker
        self._receive = taker.receive if taker is not None else receive
        held, self._rest = bytes(self._rest), bytearray()
        if len(held) > MAX_HELD_BYTES:
            self.transport.resume_reading()
        if held:
            self.data_received(held)

    def send_messages(self, payloads: list[bytes], *, text: bool) -> None:
        """Write messages, joined into one write; nothing when the connection is closing."""
        if self.protocol.state is not OPEN:
            return
        first = WHOLE_TEXT if text else WHOLE_BINARY
        self.transport.write(b"".join([part for payload in payloads for part in (head(first, len(payload)), payload)]))

    def send_frames(self, frames: bytes) -> None:
        """Write whole frames; nothing when the connection is closing."""
        if self.protocol.state is OPEN:
            self.transport.write(frames)

    def data_received(self, data: bytes) -> None:
        """Bytes from the socket."""
        if self._receive is None:
            self._before_attach(data)
        elif not self._rest:
            end = self._take_frames(data)
            if end < len(data):
                self._rest += data[end:]
        else:
            self._rest += data
            del self._rest[: self._take_frames(self._rest)]
        if self._messages:
            self._hand_over()
        if self._taker is not None:
            self._taker.done()

    def _before_attach(self, data: bytes) -> None:
        if self.protocol.eof_sent:  # the handshake failed
            return
        if not self._request_done:
            known = self._request_end + data
            end = known.find(END_OF_REQUEST)
            if end < 0:
                self._request_end = known[-3:]
                super().data_received(data)
                return
            self._request_done = True
            split = end + len(END_OF_REQUEST) - len(self._request_end)
            super().data_received(data[:split])
            data = data[split:]
        self._rest += data
        if len(self._rest) > MAX_HELD_BYTES:
            self.transport.pause_reading()

    def _take_frames(self, data: bytes | bytearray) -> int:
        """Handle the complete frames of `data`; how many bytes of it are done with."""
        protocol, at, end = self.protocol, 0, len(data)
        taker = self._taker if self._taker is not None and self._taker.begin(data) else None
        while end - at >= 2 and not protocol.eof_sent:
            if taker is not None and protocol.current_size is None:
                if self._messages:
                    self._hand_over()
                at = taker.take(at, end)
                if end - at < 2:
                    break
            first, second = data[at], data[at + 1]
            length, body = second & 0x7F, at + 6
            refused = second < MASKED or first & 0x0F not in OPCODES
            if length == 126 and not refused:
                if end - at < 4:
                    return at
                length, body = data[at + 2] << 8 | data[at + 3], at + 8
            elif length == 127 and not refused:
                if end - at < 10:
                    return at
                length, body = UINT64.unpack_from(data, at + 2)[0], at + 14
            if refused or length > self._max_size - (protocol.current_size or 0):
                self._to_library(data[at:])
                return end
            stop = body + length
            if stop > end:
                return at
            if first in WHOLE and protocol.current_size is None:
                payload = apply_mask(data[body:stop], data[body - 4 : body])
                self._take_message(payload, first == WHOLE_TEXT)
            else:
                if first == CLOSE:
                    protocol.current_size = None  # between fragments: no breach, though the library sees one
                self._to_library(data[at:stop])
            at = stop
        return end if protocol.eof_sent else at

    def _take_message(self, payload: bytes, is_text: bool) -> None:
        if is_text and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        self._messages.append(payload)
        if len(self._messages) >= MAX_MESSAGES:
            self._hand_over()

    def _hand_over(self) -> None:
        messages, self._messages = self._messages, []
        if self._receive is not None and messages:
            try:
                self._receive(messages)
            except Exception:
                self.logger.exception("messages could not be handled")
                self._fail(CloseCode.INTERNAL_ERROR, "")

    def _to_library(self, frame: bytes | bytearray) -> None:
        self._hand_over()
        super().data_received(bytes(frame))

    def process_event(self, event: Event) -> None:
        """What the library made of a frame."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        if event.opcode is not CONT:
            self._joins_text = event.opcode is TEXT
        if len(self._fragments) >= MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return
        self._fragments.append(bytes(event.data))
        if event.fin:
            payload = b"".join(self._fragments)
            self._fragments.clear()
            self._take_message(payload, self._joins_text)

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Answer what came before, then close; the library discards the rest."""
        self._hand_over()
        if not self.protocol.eof_sent:
            self.protocol.fail(code, reason)
            super().data_received(b"")  # which writes the close frame and sets its deadline
