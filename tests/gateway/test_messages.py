"""The wire: the same message in both formats, and what is said of a bad one."""

import json
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Reason
from gateway import messages
from gateway.decimals import to_text
from gateway.messages import (
    L2,
    PRIVATE_EVENTS,
    PUSHES,
    REQUESTS,
    AnyRequest,
    BalanceState,
    Code,
    Fill,
    Format,
    OpenOrdersResult,
    OrderState,
    Place,
    PositionState,
    PrivateSnapshot,
    Reply,
    RequestError,
    decode,
    encode,
)

MONEY = st.integers(-(10**15), 10**15)
LEVELS = st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**6)), max_size=4)


def made(cls: type, **fields: Any) -> st.SearchStrategy[Any]:
    """Instances of a struct; integers that are not given stay within what both formats can carry."""
    hints = get_type_hints(cls)
    integers = {name: st.integers(-(2**53), 2**53) for name in cls.__struct_fields__ if hints[name] is int}  # type: ignore[attr-defined]
    return st.builds(cls, **{**integers, **fields})


ORDERS = made(OrderState, px=MONEY, cid=st.none() | st.text(max_size=4))
POSITIONS = made(PositionState, escrow=MONEY, fees_due=MONEY, bond=MONEY)
BALANCES = made(
    BalanceState, cash=MONEY, held=MONEY, escrow=MONEY, fees_due=MONEY, bond=MONEY, rebate=MONEY, frozen=MONEY
)
RESULTS = made(OpenOrdersResult, orders=st.lists(ORDERS, max_size=2))
STATES = {"orders": st.lists(ORDERS, max_size=2), "positions": st.lists(POSITIONS, max_size=2), "balances": BALANCES}
MESSAGES = st.one_of(
    made(L2, b=LEVELS, a=LEVELS),
    made(Fill, px=MONEY, fee=MONEY, fee_due=MONEY),
    made(PrivateSnapshot, **STATES),
    made(Reply, r=RESULTS, err=st.none(), id=st.integers(0, 9), aseq=st.none()),
)
MONEY_NAMES = {"px", "fee", "fee_due", "fees_due", "escrow", "bond", "cash", "held", "rebate", "frozen"}


def textual(value: Any, name: str = "") -> Any:
    """A plain MessagePack value with its money as text, by the names of fields: what JSON must say."""
    if isinstance(value, dict):
        return {key: textual(item, key) for key, item in value.items()}
    if isinstance(value, list):
        if name in ("b", "a"):
            return [[to_text(px), lots] for px, lots in value]
        return [textual(item) for item in value]
    return to_text(value) if name in MONEY_NAMES and isinstance(value, int) else value


@given(MESSAGES)
def test_both_formats_say_the_same(message: Any) -> None:
    packed = msgspec.msgpack.decode(encode(message, Format.MSGPACK))
    assert json.loads(encode(message, Format.JSON)) == textual(packed)


def test_encoding_leaves_the_message_alone() -> None:
    message = L2("S", "delta", 10, 5, 4, 0, [(2_435_000, 12)], [], 7)
    encode(message, Format.JSON)
    assert message.b == [(2_435_000, 12)]


def refusal(text: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(text.encode(), Format.JSON)
    return caught.value


PLACE = '{"op":"order.place","id":3,"sym":"S","side":"buy","qty":1'


@pytest.mark.parametrize(
    ("text", "code", "field", "request_id"),
    [
        ("{", Code.BAD_MESSAGE, None, None),
        ("[1]", Code.BAD_MESSAGE, None, None),
        ("[" * 5_000, Code.BAD_MESSAGE, None, None),
        ('{"op":"order.place","id":3,"sym":"\\ud800"', Code.BAD_MESSAGE, None, None),
        ('{"op":"nonsense","id":3}', Code.UNKNOWN_OP, None, 3),
        ('{"op":["a"],"id":3}', Code.UNKNOWN_OP, None, 3),
        ('{"id":3}', Code.UNKNOWN_OP, None, 3),
        ('{"op":"balances"}', Code.BAD_FIELD, "id", None),
        ('{"op":"balances","id":-1}', Code.BAD_FIELD, "id", None),
        ('{"op":"balances","id":9007199254740993}', Code.BAD_FIELD, "id", None),
        ('{"op":"balances","id":"7"}', Code.BAD_FIELD, "id", None),
        (PLACE + ',"show":0}', Code.BAD_FIELD, "show", 3),
        (PLACE + ',"min_qty":1000001}', Code.BAD_FIELD, "min_qty", 3),
        (PLACE + ',"stop":2.5}', Code.BAD_FIELD, "stop", 3),
        (PLACE + ',"trigger":"mark"}', Code.BAD_FIELD, "trigger", 3),
        (PLACE + ',"deadline":0}', Code.BAD_FIELD, "deadline", 3),
        (PLACE + ',"expire":9007199254740993}', Code.BAD_FIELD, "expire", 3),
        (PLACE + ',"stp":"none"}', Code.BAD_FIELD, "stp", 3),
        (PLACE + ',"stp_group":128}', Code.BAD_FIELD, "stp_group", 3),
        (PLACE + ',"tag":0}', Code.BAD_FIELD, "tag", 3),
        (PLACE + ',"group":2147483648}', Code.BAD_FIELD, "group", 3),
        (PLACE + ',"reduce_only":1}', Code.BAD_FIELD, "reduce_only", 3),
        (PLACE + ',"display":3}', Code.BAD_FIELD, "display", 3),
        (PLACE + ',"px":2.5}', Code.BAD_FIELD, "px", 3),
        (PLACE + ',"tif":"day"}', Code.BAD_FIELD, "tif", 3),
        (PLACE + ',"post":"always"}', Code.BAD_FIELD, "post", 3),
        ('{"op":"cancel.mass","id":3,"lock":"yes"}', Code.BAD_FIELD, "lock", 3),
        ('{"op":"quote.mass","id":3,"quotes":[]}', Code.BAD_FIELD, "group", 3),
        ('{"op":"quote.mass","id":3,"group":0,"quotes":[]}', Code.BAD_FIELD, "group", 3),
        ('{"op":"quote.mass","id":3,"group":1,"quotes":[{"b":[]}]}', Code.BAD_FIELD, "sym", 3),
        ('{"op":"quote.mass","id":3,"group":1,"quotes":[{"sym":"S","b":[["2",1,1]]}]}', Code.BAD_FIELD, "b", 3),
        ('{"op":"quote.mass","id":3,"group":1,"quotes":[{"sym":"S","a":[["2","1"]]}]}', Code.BAD_FIELD, "a", 3),
        ('{"op":"quote.mass","id":3,"group":1,"quotes":[{"sym":"S","c":[]}]}', Code.BAD_FIELD, "c", 3),
        ('{"op":"cancel_after","id":3}', Code.BAD_FIELD, "ms", 3),
        ('{"op":"cancel_after","id":3,"ms":86400001}', Code.BAD_FIELD, "ms", 3),
        ('{"op":"mmp.set","id":3,"group":1,"lots":5,"fills":65,"window_ms":1}', Code.BAD_FIELD, "fills", 3),
        ('{"op":"mmp.set","id":3,"group":1,"lots":0,"fills":1,"window_ms":1}', Code.BAD_FIELD, "lots", 3),
        ('{"op":"mmp.set","id":3,"group":1,"lots":1,"fills":1,"window_ms":3600001}', Code.BAD_FIELD, "window_ms", 3),
        ('{"op":"mmp.reset","id":3}', Code.BAD_FIELD, "group", 3),
        ('{"op":"admin.band","id":3,"sym":"S","ref_px":"1","band_ppm":-1}', Code.BAD_FIELD, "band_ppm", 3),
        ('{"op":"admin.limits","id":3,"account":"a","net":-1}', Code.BAD_FIELD, "net", 3),
        (PLACE + ',"cid":"has space"}', Code.BAD_FIELD, "cid", 3),
        (PLACE + ',"cid":"new\\n"}', Code.BAD_FIELD, "cid", 3),
        (PLACE + f',"cid":"{"x" * 37}"}}', Code.BAD_FIELD, "cid", 3),
        ('{"op":"order.place","id":3,"sym":"S","side":"buy"}', Code.BAD_FIELD, "qty", 3),
        ('{"op":"order.place","id":3,"sym":"S","side":"hold","qty":1}', Code.BAD_FIELD, "side", 3),
        ('{"op":"order.place","id":3,"sym":"S","side":"buy","qty":1.0}', Code.BAD_FIELD, "qty", 3),
        ('{"op":"order.batch","id":3,"items":[{"op":"order.place","sym":1}]}', Code.BAD_FIELD, "sym", 3),
        ('{"op":"order.batch","id":3,"items":[{"op":"balances"}]}', Code.BAD_FIELD, "op", 3),
        ('{"op":"subscribe","id":3,"channels":[{"name":"l2","depth":11}]}', Code.BAD_FIELD, "depth", 3),
        ('{"op":"subscribe","id":3,"channels":[{"name":"l2","from":1}]}', Code.BAD_FIELD, "from", 3),
    ],
)  # fmt: skip
def test_refusals(text: str, code: Code, field: str | None, request_id: int | None) -> None:
    refused = refusal(text)
    assert (refused.error.code, refused.error.field, refused.id) == (code, field, request_id)
    assert refused.error.final
    assert refused.error.msg


def test_a_uuid_is_a_cid() -> None:
    cid = "123e4567-e89b-12d3-a456-426614174000"
    request = decode((PLACE + f',"cid":"{cid}"}}').encode(), Format.JSON)
    assert isinstance(request, Place)
    assert request.cid == cid


@given(st.binary(max_size=60), st.sampled_from(Format))
def test_any_bytes_are_a_request_or_a_refusal(data: bytes, wire: Format) -> None:
    try:
        decode(data, wire)
    except RequestError as refused:
        assert refused.error.code < 2000


def test_codes_agree_with_the_engine() -> None:
    for reason in Reason:
        if reason in set(Code) and reason != Reason.UNKNOWN_KIND:
            assert Code(reason).name == reason.name


def test_lists_of_messages_are_complete() -> None:
    assert set(REQUESTS) == set(get_args(AnyRequest))
    structs = {
        value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)
    }
    tagged = {cls for cls in structs if cls.__struct_config__.tag_field == "ch"}
    assert tagged == set(PUSHES)
    private = {cls for cls in structs if cls.__struct_config__.tag_field == "ev"}
    assert private - {messages.Private} == set(PRIVATE_EVENTS)


def test_a_field_of_a_wrong_type_beside_bytes_that_are_no_text() -> None:
    """The look at `op` and `id` after a refusal meets what the refusal came before."""
    data = b"\x82\xa2id\xa1\xa3\xa2op\xa1\xff"
    with pytest.raises(RequestError) as refused:
        decode(data, Format.MSGPACK)
    assert refused.value.error.code == Code.BAD_MESSAGE
