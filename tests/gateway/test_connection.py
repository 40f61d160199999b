"""The connection class against the library's own: the same bytes, split in the same way, must give the same messages,
the same pongs and the same close.
"""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from gateway.connection import MAX_FRAGMENTS, MAX_HELD_BYTES, MAX_MESSAGES, Connection

MAX_SIZE = 300
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass
class Seen:
    """What came of a connection: messages at the server, pongs and the close at the client."""

    messages: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    close: tuple[int, bytes] | None = None


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A frame as a client sends it, or should not."""
    length, bit = len(payload), 0x80 if masked else 0
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if length < 126:
        head += bytes([bit | length])
    elif length < 65_536:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    if not masked:
        return head + payload
    mask = b"\x11\xfe\x37\x80"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def closing(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(0x8, struct.pack("!H", code) + reason)


# --- Random sequences -------------------------------------------------------------------------------------------------

texts = st.text(max_size=60).map(str.encode)
payloads = st.binary(max_size=140)
pings = st.binary(max_size=125).map(lambda payload: frame(0x9, payload))
pongs = st.binary(max_size=20).map(lambda payload: frame(0xA, payload))
whole = st.one_of(texts.map(lambda payload: frame(0x1, payload)), payloads.map(lambda payload: frame(0x2, payload)))


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    """A message in fragments, cut anywhere, with pings in between."""
    opcode = draw(st.sampled_from((0x1, 0x2)))
    payload = draw(texts if opcode == 0x1 else payloads)
    cuts = sorted({0, len(payload), *draw(st.lists(st.integers(0, len(payload)), max_size=3))})
    pieces = [payload[start:end] for start, end in pairwise(cuts)] or [b""]
    pieces += [b""] * draw(st.integers(0, 1))
    data = b""
    for index, piece in enumerate(pieces):
        data += frame(0x0 if index else opcode, piece, fin=index == len(pieces) - 1)
        if index < len(pieces) - 1:
            data += draw(st.one_of(st.just(b""), pings))
    return data


broken = st.one_of(
    st.integers(MAX_SIZE + 1, 70_000).map(lambda size: frame(0x2, bytes(size))),
    st.integers(MAX_SIZE + 1, 2**62).map(lambda size: b"\x82\xff" + struct.pack("!Q", size)),  # the header alone
    st.just(frame(0x1, bytes(200), fin=False) + frame(0x0, bytes(101))),
    whole.map(lambda data: bytes([data[0], data[1] & 0x7F]) + data[2:]),
    st.sampled_from((b"\x81\x00", b"\x89\x00", b"\x88\x7e")),
    st.builds(lambda rsv, payload: frame(0x2, payload, rsv=rsv), st.integers(1, 7), payloads),
    st.builds(lambda rsv, payload: frame(0x9, payload[:125], rsv=rsv), st.integers(1, 7), payloads),
    st.builds(frame, st.sampled_from((3, 4, 5, 6, 7, 11, 12, 13, 14, 15)), payloads),
    st.just(frame(0x9, bytes(126))),
    st.just(frame(0x9, b"", fin=False)),
    st.just(frame(0x0, b"no message has begun")),
    st.just(frame(0x1, b"begun", fin=False) + frame(0x1, b"and another")),
    st.sampled_from((frame(0x8, b""), frame(0x8, b"\x03"), closing(1005), closing(999), closing(1000, b"\xff"))),
    st.builds(closing, st.sampled_from((1000, 1001, 3000, 4999)), st.sampled_from((b"", "off \u2713".encode()))),
)
bad_texts = st.sampled_from(
    (
        frame(0x1, b"bad \xff"),
        frame(0x1, b"short \xe2\x82"),
        frame(0x1, b"\xe2\x82", fin=False) + frame(0x0, b"\x28"),
        frame(0x1, b"\xed\xa0\x80"),
    )
)


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes as the reads of a socket."""
    if draw(st.booleans()) and len(data) < 400:
        return [data[index : index + 1] for index in range(len(data))]
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=8))})
    return [data[start:end] for start, end in pairwise(cuts)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    """The reads of a connection, and whether it is cut off before the server has any reason to close."""
    begun = b"".join(draw(st.lists(st.one_of(whole, fragmented(), pings, pongs), max_size=12)))
    how = draw(st.sampled_from(("broken", "bad text", "cut off")))
    if how == "cut off":
        return draw(splits(begun + draw(whole)[:-1])), True
    if how == "bad text":  # the library looks at it later: what follows must not have an answer of its own
        begun += draw(bad_texts) + b"".join(draw(st.lists(whole, max_size=2)))
    else:
        begun += draw(broken) + b"".join(draw(st.lists(st.one_of(whole, pings), max_size=2)))
    return draw(splits(begun)), False


# --- Both servers -----------------------------------------------------------------------------------------------------


def caught(base: type[ServerConnection], made: "asyncio.Future[ServerConnection]") -> type[ServerConnection]:
    class Caught(base):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.set_result(self)

    return Caught


async def meet(base: type[ServerConnection], reads: list[bytes], cut_off: bool, request: bytes = REQUEST) -> Seen:
    """Give a server's connection these reads, whatever the kernel would have made of them, and look what comes."""
    seen, started = Seen(), asyncio.Event()
    made: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handle(connection: ServerConnection) -> None:
        started.set()
        if isinstance(connection, Connection):
            connection.attach(seen.messages.extend)
            await connection.wait_closed()
            return
        try:
            while True:
                message = await connection.recv()
                seen.messages.append(message.encode() if isinstance(message, str) else message)
        except ConnectionClosed:
            pass

    options = {
        "compression": None,
        "ping_interval": None,
        "max_size": MAX_SIZE,
        "create_connection": caught(base, made),
    }
    async with serve(handle, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]
        port = next(iter(server.sockets)).getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connection = await made
        connection.data_received(request)
        await started.wait()
        for data in reads:
            connection.data_received(data)
        if cut_off:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await connection.wait_closed()
    read_answer(answer.partition(b"\r\n\r\n")[2], seen)
    return seen


def read_answer(data: bytes, seen: Seen) -> None:
    """What a server sent after its handshake."""
    stream = StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    while stream.buffer:
        parser = Frame.parse(stream.read_exact, mask=False)
        with pytest.raises(StopIteration) as done:
            next(parser)
        got: Frame = done.value.value
        if got.opcode is Opcode.PONG:
            seen.pongs.append(bytes(got.data))
        else:
            assert got.opcode is Opcode.CLOSE and seen.close is None
            seen.close = (int.from_bytes(got.data[:2], "big"), bytes(got.data[2:]))


@settings(max_examples=300, deadline=None)
@given(streams())
def test_the_same_as_the_library(stream: tuple[list[bytes], bool]) -> None:
    theirs = asyncio.run(meet(ServerConnection, *stream))
    assert asyncio.run(meet(Connection, *stream)) == theirs
    assert (theirs.close is None) == stream[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(whole, min_size=1, max_size=6).map(b"".join), st.data())
def test_frames_that_come_with_the_request(begun: bytes, data: st.DataObject) -> None:
    early = data.draw(st.integers(0, len(begun)))
    stream = ([begun[early:] + closing()], False, REQUEST + begun[:early])
    assert asyncio.run(meet(Connection, *stream)) == asyncio.run(meet(ServerConnection, *stream))


# --- What the library does not show -----------------------------------------------------------------------------------


async def exchange(data: bytes, receive: Callable[[Connection, list[bytes]], None]) -> Seen:
    """Bytes over a real socket to a connection with this callback; what the client gets."""
    seen = Seen()

    async def handle(connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        connection.attach(lambda messages: receive(connection, messages))
        await connection.wait_closed()

    async with serve(
        handle, "127.0.0.1", 0, compression=None, ping_interval=None, create_connection=Connection
    ) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", next(iter(server.sockets)).getsockname()[1])
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    stream = StreamReader()
    stream.feed_data(answer.partition(b"\r\n\r\n")[2])
    while stream.buffer:
        with pytest.raises(StopIteration) as done:
            next(Frame.parse(stream.read_exact, mask=False))
        seen.messages.append(bytes([done.value.value.opcode]) + bytes(done.value.value.data))
    return seen


def echo(connection: Connection, messages: list[bytes]) -> None:
    connection.send_messages(messages, text=False)


async def test_replies_come_before_the_pong_and_the_close_that_followed() -> None:
    data = frame(0x2, b"a") + frame(0x9, b"p") + frame(0x2, b"b") + frame(0x2, b"c") + closing()
    seen = await exchange(REQUEST + data, echo)
    assert seen.messages == [b"\x02a", b"\x0ap", b"\x02b", b"\x02c", b"\x08\x03\xe8"]


async def test_replies_come_before_the_failure_that_followed() -> None:
    seen = await exchange(REQUEST + frame(0x2, b"a") + frame(0x1, b"\xff") + frame(0x2, b"b"), echo)
    assert seen.messages[0] == b"\x02a" and seen.messages[1][:3] == b"\x08" + struct.pack("!H", 1007)
    assert len(seen.messages) == 2


async def test_a_read_is_handed_over_at_once_up_to_a_limit() -> None:
    sizes: list[int] = []
    frames = frame(0x2, b"x") * (2 * MAX_MESSAGES + 3)
    await exchange(REQUEST + frames + closing(), lambda _, messages: sizes.append(len(messages)))
    assert sum(sizes) == 2 * MAX_MESSAGES + 3 and max(sizes) == MAX_MESSAGES


async def test_more_than_may_be_held_before_the_handler_starts() -> None:
    count = 3 * MAX_HELD_BYTES // 106
    got: list[bytes] = []
    await exchange(REQUEST + frame(0x2, bytes(100)) * count + closing(), lambda _, messages: got.extend(messages))
    assert got == [bytes(100)] * count


@pytest.mark.parametrize(("fragments", "code"), [(MAX_FRAGMENTS, 1000), (MAX_FRAGMENTS + 1, 1009)])
async def test_the_number_of_fragments_is_limited(fragments: int, code: int) -> None:
    frames = frame(0x2, b"", fin=False) + frame(0x0, b"", fin=False) * (fragments - 2) + frame(0x0, b"")
    seen = await exchange(REQUEST + frames + closing(), lambda *_: None)
    assert seen.messages[-1][1:3] == struct.pack("!H", code)


async def test_a_callback_that_fails_closes_the_connection() -> None:
    def fail(_connection: Connection, messages: list[bytes]) -> None:
        raise ValueError(messages)

    seen = await exchange(REQUEST + frame(0x2, b"a") + frame(0x2, b"b"), fail)
    assert [message[1:3] for message in seen.messages] == [struct.pack("!H", 1011)]


async def test_lengths_of_all_headers_both_ways() -> None:
    messages = [bytes(size) for size in (0, 1, 125, 126, 65_535, 65_536, 100_000)]

    async def handle(connection: ServerConnection) -> None:
        assert isinstance(connection, Connection)
        connection.attach(lambda got: connection.send_messages(got, text=False))
        await connection.wait_closed()

    async with (
        serve(handle, "127.0.0.1", 0, compression=None, create_connection=Connection) as server,
        connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", compression=None) as client,
    ):
        for message in messages:
            await client.send(message)
            assert await client.recv() == message


async def test_a_close_between_fragments_is_answered_like_any() -> None:
    """A control frame may come there (RFC 6455, 5.4); the library takes it for a breach."""
    seen = await exchange(REQUEST + frame(0x1, b"begun", fin=False) + closing(), echo)
    assert seen.messages == [b"\x08\x03\xe8"]
