"""What an account did, page by page, against what its private stream said."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.kernel import JIT
from engine.types import EVENT, Kind
from gateway.config import GatewayConfig
from gateway.fast import past
from gateway.fast.past import FILL, NO_ROW, OLD_ORDER, OLDER_OPEN, ORDER
from gateway.history import History, HistoryState, Ring, warm_up
from gateway.messages import Format, decode
from tests.gateway.node import OTHER, SYMBOL, Bot, Node, market
from tests.gateway.slow_history import SlowHistory
from tests.gateway.test_market_data import trade_at_random
from tests.pair import Pair
from tests.step import Step
from tests.steps import random_steps, steps

Trio = tuple[Node, Bot, Bot]


def all_pages(bot: Bot, op: str, limit: int = 7, **fields: Any) -> list[Any]:
    """Everything, newest first, by following `next`."""
    found: list[Any] = []
    before: dict[str, int] = {}
    while True:
        page = bot.good(op, limit=limit, **fields, **before)
        rows = page["fills" if op == "fills" else "orders"]
        assert len(rows) <= limit + 3
        found += rows
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


def told(node: Node, account: int) -> tuple[list[Any], list[Any]]:
    """Fills and ends of orders, from the private stream, newest first."""
    ring = list(node.gateway.streams.stream(account).since(1) or [])
    fills = [event for event in ring if type(event).__name__ == "Fill"]
    ends = [event.oid for event in ring if event.__class__.__name__ in ("Fill", "OrderEvent") and _is_end(event)]
    return fills[::-1], ends[::-1]


def _is_end(event: Any) -> bool:
    return bool(event.st in ("filled", "canceled") and event.left == 0)


@pytest.mark.parametrize("seed", range(3))
def test_pages_are_what_the_private_stream_said(tmp_path: Path, seed: int) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(rate_burst=10**6, private_ring_events=10**5))
    rng = random.Random(seed)
    for _ in range(60):
        for _ in range(rng.randrange(1, 8)):
            trade_at_random(rng, rng.choice((maker, taker)))
        node.run()
        if rng.random() < 0.3:
            node.gateway.poll()
    for number, bot in ((1, maker), (2, taker)):
        bot.take()
        fills, ends = told(node, number)
        shown = all_pages(bot, "fills")
        assert sorted((row["tid"], row["oid"]) for row in shown) == sorted((event.tid, event.oid) for event in fills)
        assert [row["tid"] for row in shown] == [event.tid for event in fills]
        by_key = {(event.tid, event.oid): event for event in fills}
        for row in shown:
            event = by_key[row["tid"], row["oid"]]
            assert (row["side"], row["qty"], row["left"], row["cum"]) == (event.side, event.qty, event.left, event.cum)
            assert (row["liq"], row["sym"], row["cid"]) == (event.liq, event.sym, event.cid)
            assert [
                int(float(row[name]) * 1e6 + (0.5 if float(row[name]) > 0 else -0.5)) for name in ("px", "fee")
            ] == [
                event.px,
                event.fee,
            ]
        orders = all_pages(bot, "orders.history")
        assert sorted(row["oid"] for row in orders) == sorted(ends)
        projected = node.gateway.projection.orders
        for row in orders:
            order = projected[row["oid"]]
            assert (row["qty"], row["cum"], row["st"], row["side"] == "sell") == (
                order.qty, order.cum, order.status, order.side == 1,
            )  # fmt: skip
        assert len(fills) > 10


def test_a_page_and_the_one_before(trio: Trio) -> None:
    _, maker, taker = trio
    for n in range(5):
        maker.place("sell", 1, "2.5", cid=f"m{n}")
        taker.place("buy", 1, "2.5")
    page = maker.good("fills", limit=2)
    assert [row["cid"] for row in page["fills"]] == ["m4", "m3"]
    assert page["next"] == page["fills"][-1]["tid"]
    assert [row["cid"] for row in maker.good("fills", limit=2, before=page["next"])["fills"]] == ["m2", "m1"]
    assert maker.good("fills", sym=SYMBOL, before=1) == {"fills": [], "next": None}
    assert maker.good("fills", sym=OTHER)["fills"] == []
    for wrong in ({"limit": 0}, {"limit": 1_001}, {"before": 0}):
        assert maker.bad("fills", **wrong)["field"] in wrong


def test_how_orders_ended(trio: Trio) -> None:
    _, maker, taker = trio
    order = maker.place("sell", 5, "2.5", cid="a", post="reject")["oid"]
    maker.good("order.amend", oid=order, qty=7, px="2.6")
    taker.place("buy", 3, "2.6", cid="t")
    maker.good("order.cancel", oid=order)
    (row,) = maker.good("orders.history")["orders"]
    assert (row["oid"], row["cid"], row["px"], row["qty"], row["cum"]) == (order, "a", "2.6", 7, 3)
    assert (row["st"], row["why"], row["post"], row["tif"], row["type"]) == (
        "canceled",
        "by_request",
        True,
        "gtg",
        "limit",
    )
    assert row["done"] > row["ts"]
    (filled,) = taker.good("orders.history")["orders"]
    assert (filled["st"], filled["why"], filled["cid"], filled["qty"]) == ("filled", None, "t", 3)


@pytest.mark.parametrize("restart", [False, True])
def test_what_finished_orders_had_beyond_plain_ones(tmp_path: Path, restart: bool) -> None:
    node, maker, taker = market(tmp_path)
    later = node.now_ns // 1_000 + 10**9
    maker.place("sell", 9, "2.5", show=2, post="slide", tif="gtd", expire=later)
    taker.place("buy", 1, "2.5")
    taker.place("sell", 1, "2.9", reduce_only=True, tag=4)
    taker.place("buy", 1, "2.0", tag=5, deadline=later)
    if restart:
        node.restart(node.gateway.snapshot(), len(node.log))
        maker, taker = Bot(node), Bot(node)
        maker.logon("maker")
        taker.logon("taker")
    for bot in (maker, taker):
        bot.good("cancel.mass")
    (iceberg,) = maker.good("orders.history")["orders"]
    assert {name: iceberg.get(name) for name in ("show", "expire", "slide", "reduce_only", "post")} == {
        "show": 2, "expire": later, "slide": True, "reduce_only": None, "post": False,
    }  # fmt: skip
    rows = {row["px"]: row for row in taker.good("orders.history")["orders"]}
    assert rows["2.9"]["reduce_only"] is True
    assert not {"show", "expire", "slide", "reduce_only"} & rows["2"].keys()


def test_older_files_and_snapshots_are_read(tmp_path: Path) -> None:
    """Rows of orders were shorter once."""
    rows = np.zeros(8, OLD_ORDER)
    rows["seq"], rows["account"], rows["order_id"], rows["prev"] = np.arange(1, 9), 1, np.arange(8), np.arange(-1, 7)
    rows.tofile(tmp_path / "orders.dat")
    ring = Ring(ORDER, 8, tmp_path / "orders.dat", OLD_ORDER)
    ring.restore(8, 8)
    found, _ = ring.page(1, None, 10, None)
    assert found["order_id"].tolist() == list(range(7, -1, -1)) and not found["show"].any()
    history = History(8)
    old = np.zeros(1, OLDER_OPEN[1])
    old["order_id"], old["stop_price"] = 7, 5
    history.load(HistoryState(0, 0, 0, old.tobytes(), [], has_stops=True))
    assert history._open["stop_price"][7] == 5 and history._open["show"][7] == 0


def test_history_can_be_left_out(tmp_path: Path) -> None:
    node, maker, taker = market(tmp_path, GatewayConfig(history_rows=0))
    maker.place("sell", 1, "2.5")
    taker.place("buy", 1, "2.5")
    assert taker.good("fills") == {"fills": [], "next": None}
    node.restart(node.gateway.snapshot(), len(node.log))
    assert node.gateway.history.past_fills(2, _request("fills")).fills == []


def _request(op: str) -> Any:
    return decode(f'{{"op":"{op}","id":1}}'.encode(), Format.JSON)


def test_a_number_that_is_listed_again_is_another_symbol(trio: Trio) -> None:
    node, maker, taker = trio
    maker.place("sell", 1, "2.5")
    taker.place("buy", 1, "2.5")
    taker.place("sell", 1, "2.5")
    maker.place("buy", 1, "2.5")
    node.simple(Kind.CLOSE, instrument=1)
    node.simple(Kind.DELIST, instrument=1)
    node.list(OTHER, 1)
    node.fund(1)
    maker.good("order.place", sym=OTHER, side="sell", qty=1, px="0.5")
    taker.good("order.place", sym=OTHER, side="buy", qty=1, px="0.5")
    assert [row["sym"] for row in taker.good("fills")["fills"]] == [OTHER, SYMBOL, SYMBOL]


def served(node: Node, path: Path | None, rows: int = 1_000) -> None:
    """From now on the node's gateways keep their history in files."""
    make = node.make_gateway
    node.make_gateway = lambda: _with(make(), History(rows, path))  # type: ignore[method-assign]


def _with(gateway: Any, history: History) -> Any:
    gateway.history = history
    return gateway


@pytest.mark.parametrize("rows", [16, 1_000])
def test_history_survives_a_restart(tmp_path: Path, rows: int) -> None:
    node, _, _ = market(tmp_path, GatewayConfig(rate_burst=10**6))
    served(node, tmp_path / "history", rows)
    node.restart()
    node.create_key("m2", "maker")
    rng = random.Random(1)

    def log_on() -> list[Bot]:
        bots = [Bot(node), Bot(node)]
        bots[0].logon("maker")
        bots[1].logon("taker")
        return bots

    def play(bots: list[Bot]) -> None:
        for _ in range(40):
            trade_at_random(rng, rng.choice(bots))
            node.run()

    play(log_on())
    snapshot, after = node.gateway.snapshot(), len(node.log)
    play(log_on())
    shown = [all_pages(bot, op) for bot in log_on() for op in ("fills", "orders.history")]
    assert all(shown)
    for state, first in ((snapshot, after), (None, 0), (node.gateway.snapshot(), len(node.log))):
        node.restart(state, first)
        assert [all_pages(bot, op) for bot in log_on() for op in ("fills", "orders.history")] == shown
    for path in (tmp_path / "history").iterdir():
        path.unlink()
    node.restart(snapshot, after)  # the files are lost: what came after the snapshot is there
    later = [all_pages(bot, op) for bot in log_on() for op in ("fills", "orders.history")]
    for part, whole in zip(later, shown, strict=True):
        assert part == whole[: len(part)]


def test_a_snapshot_forces_the_files_behind_the_market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node, _, _ = market(tmp_path)
    served(node, tmp_path / "history")
    node.restart()
    forced: list[int] = []
    monkeypatch.setattr("gateway.history.os.fsync", forced.append)
    stored = node.gateway.capture()
    assert forced == []
    stored()
    assert len(forced) == 3  # the files, and their names


def rows_of(ring: Ring) -> list[dict[str, Any]]:
    """What a ring has, oldest first."""
    names = [name for name in ring.rows.dtype.names or () if name not in ("prev", "pad")]
    found = []
    for number in range(max(0, ring.count - len(ring.rows)), ring.count):
        row = ring.rows[number % len(ring.rows)]
        found.append({name: text(row[name]) for name in names})
    return found


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def check_links(ring: Ring) -> None:
    """Each row leads to the one before it of the same account."""
    newest: dict[int, int] = {}
    for number in range(max(0, ring.count - len(ring.rows)), ring.count):
        row = ring.rows[number % len(ring.rows)]
        account = int(row["account"])
        if account in newest:
            assert row["prev"] == newest[account]
        newest[account] = number
    assert {account: int(ring.last[account]) for account in newest} == newest


def compare(played: Pair, sizes: list[int], capacity: int, restart_at: int, directory: Path) -> None:
    """The history of what was played, taken in by batches of these sizes, against the slow one."""
    commands, events = played.log(), np.frombuffer(b"".join(played.events), EVENT)
    history, slow = History(capacity, directory), SlowHistory()
    at = batch = 0
    while at < len(commands):
        part = commands[at : at + sizes[batch % len(sizes)]]
        caused = events[np.isin(events["command_seq"], part["seq"])]
        history.on_batch(part, caused)
        slow.on_batch(part, caused)
        at, batch = at + len(part), batch + 1
        if batch == restart_at:
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(history.dump()), type=HistoryState)
            history.sync()
            history = History(capacity, directory)
            history.load(state)
        elif batch % 3 == 0:
            history.take_in()
    history.take_in()
    for ring, expected in ((history.fills, slow.fills), (history.orders, slow.orders)):
        assert ring.count == len(expected)
        assert rows_of(ring) == expected[-capacity:]
        check_links(ring)


def played(steps: Iterable[Step]) -> Pair:
    return Pair().open((0, 1, 2), (10**9, 10**8, 10**9, 10**7)).play(steps)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_those_of_the_slow_history(tmp_path: Path, seed: int) -> None:
    pair, rng = played(random_steps(seed, 400)), random.Random(seed)
    compare(pair, [rng.randint(1, 40) for _ in range(7)], 10_000, 5, tmp_path)
    compare(pair, [1, 90, 3], 20, 4, tmp_path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps(40), st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 9))
def test_no_steps_tell_the_two_apart(
    tmp_path_factory: pytest.TempPathFactory, taken: list[Step], sizes: list[int], capacity: int, restart_at: int
) -> None:
    compare(played(taken), sizes, capacity, restart_at, tmp_path_factory.mktemp("history"))


def append(ring: Ring, rows: NDArray[np.void]) -> None:
    """Put rows behind those of a ring, as compiled code does."""
    ring.last = np.append(ring.last, [NO_ROW] * 4)
    for row in rows:
        row["prev"], ring.last[row["account"]] = ring.last[row["account"]], ring.count
        ring.rows[ring.count % len(ring.rows)] = row
        ring.count += 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=12), max_size=8),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_a_ring_gives_back_its_last_rows(batches: list[list[tuple[int, bool]]], capacity: int, limit: int) -> None:
    ring, everything, seq = Ring(FILL, capacity, None), [], 0
    for batch in batches:
        rows = np.zeros(len(batch), FILL)
        for at, (account, same) in enumerate(batch):
            seq += not same or seq == 0
            rows["account"][at], rows["seq"][at] = account, seq
            everything.append((account, seq))
        append(ring, rows)
    kept = everything[-capacity:]
    for account in (1, 2, 3):
        found: list[int] = []
        before = None
        while True:
            rows, before = ring.page(account, before, limit, None)
            found += rows["seq"].tolist()
            if before is None:
                break
        assert found == [s for a, s in reversed(kept) if a == account]


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_nothing_is_compiled_while_the_market_waits(trio: Trio, tmp_path: Path) -> None:
    """What `warm_up` loads is all that any history needs."""
    warm_up()
    doors = (past.needs, past.follow_past)
    loaded = [len(door.signatures) for door in doors]
    node, maker, taker = trio
    maker.place("sell", 3, "2.5", cid="a")
    taker.place("buy", 3, "2.5")
    served(node, tmp_path / "history")
    taker.good("fills")
    assert [len(door.signatures) for door in doors] == loaded
