"""What a load generator has to see of the bytes it reads, in compiled code: so that it is not what limits the server.

Messages are counted, or the answers among them are found, without a look at anything else in them. No server that is measured
sends pings; whoever must answer them reads frame by frame.
"""

from typing import Any

import numba
import numpy as np

ZERO, NINE, MAP = 0x30, 0x39, 0x80
TRUE_BYTE, UINTS = 0xC3, 0xCC  # of MessagePack: true, and the first of the integers of 1, 2, 4 and 8 bytes
NONE = -1


@numba.njit
def header(data: Any, at: Any) -> Any:
    """Where the payload of a frame begins, and its length; a beginning of 0 when the header is not complete."""
    left = len(data) - at
    if left < 2:
        return 0, 0
    length, start = np.int64(data[at + 1] & 0x7F), at + 2
    if length >= 126:
        wide = 2 if length == 126 else 8
        if left < 2 + wide:
            return 0, 0
        length, start = big_endian(data, start, wide), start + wide
    return start + (4 if data[at + 1] & 0x80 else 0), length


@numba.njit
def big_endian(data: Any, at: Any, count: Any) -> Any:
    value = np.int64(0)
    for k in range(count):
        value = value << 8 | np.int64(data[at + k])
    return value


@numba.njit(cache=True)
def count_frames(data: Any, skip: Any) -> Any:
    """How many frames end in a read of which the first `skip` bytes belong to one before; the bytes that the last one still
    lacks; and where a header begins that is not complete.
    """
    at: Any = skip
    end, frames = len(data), 0
    if skip > end:
        return 0, skip - end, end
    if skip:
        frames = 1
    while True:
        start, length = header(data, at)
        if start == 0:
            return frames, 0, at
        at = start + length
        if at > end:
            return frames, at - end, end
        frames += 1


@numba.njit(cache=True)
def find_replies(data: Any, at: Any, ids: Any) -> Any:
    """Put the numbers of the requests that are answered into `ids`, until it is full or no frame is left: how many; how many
    of them were refused; and where it stopped.
    """
    found, refused = 0, 0
    while found < len(ids):
        start, length = header(data, at)
        if start == 0 or start + length > len(data):
            break
        at = start + length
        number, ok = reply(data[start:at])
        if number != NONE:
            ids[found] = number
            found += 1
            refused += not ok
    return found, refused, at


@numba.njit
def reply(payload: Any) -> Any:
    """The number of the request that a message answers, and whether it was taken; NONE for what is no answer.

    An answer says its number first; an echo of a request says it last.
    """
    size = len(payload)
    if size < 8:
        return NONE, True
    if is_at(payload, 0, '{"id":'):
        number, at = decimal(payload, 6)
        return number, is_at(payload, at, ',"ok":true')
    if is_at(payload, 0, '{"op"'):
        at = size - 1
        while ZERO <= payload[at - 1] <= NINE:
            at -= 1
        return decimal(payload, at)[0] if is_at(payload, at - 5, '"id":') else NONE, True
    if payload[0] & 0xF0 == MAP and is_at(payload, 1, "\xa2id"):
        number, at = packed(payload, 4)
        return number, is_at(payload, at, "\xa2ok") and payload[at + 3] == TRUE_BYTE
    return NONE, True


@numba.njit
def is_at(payload: Any, at: Any, text: Any) -> Any:
    if at < 0 or at + len(text) > len(payload):
        return False
    for k in range(len(text)):  # noqa: SIM110 - compiled code has no all()
        if payload[at + k] != ord(text[k]):
            return False
    return True


@numba.njit
def decimal(payload: Any, at: Any) -> Any:
    """The digits from there on, and where they end."""
    value = np.int64(0)
    while at < len(payload) and ZERO <= payload[at] <= NINE:
        value, at = 10 * value + np.int64(payload[at]) - ZERO, at + 1
    return value, at


@numba.njit
def packed(payload: Any, at: Any) -> Any:
    """The MessagePack integer there, NONE for anything else, and where it ends."""
    first = np.int64(payload[at])
    if first < MAP:
        return first, at + 1
    size = 1 << (first - UINTS)
    if not UINTS <= first <= UINTS + 3 or at + 1 + size > len(payload):
        return np.int64(NONE), at
    return big_endian(payload, at + 1, size), at + 1 + size
