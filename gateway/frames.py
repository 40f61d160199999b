"""Messages with their websocket headers: whole, unmasked, as a server sends them."""

from struct import Struct

from gateway.messages import Format

WHOLE_TEXT, WHOLE_BINARY = 0x81, 0x82  # the first byte of an unfragmented frame without reserved bits
WHOLE = frozenset((WHOLE_TEXT, WHOLE_BINARY))
HEAD_16, HEAD_64 = Struct("!BBH"), Struct("!BBQ")
SHORT_HEADS = {first: [bytes((first, length)) for length in range(126)] for first in (WHOLE_TEXT, WHOLE_BINARY)}
FIRST_BYTE = {Format.JSON: WHOLE_TEXT, Format.MSGPACK: WHOLE_BINARY}


class Frames(bytes):
    """One message or more, framed."""


def head(first: int, length: int) -> bytes:
    """The header of a frame with this first byte and a payload of this length."""
    if length < 126:
        return SHORT_HEADS[first][length]
    return HEAD_16.pack(first, 126, length) if length < 65_536 else HEAD_64.pack(first, 127, length)


def framed(payload: bytes, wire: Format) -> Frames:
    """A message of that format, framed."""
    return Frames(head(FIRST_BYTE[wire], len(payload)) + payload)
