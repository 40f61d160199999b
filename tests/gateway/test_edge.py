"""The server's edge on loopback: TLS, origins, limits of connections, failed log-ons, health and metrics."""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidMessage, InvalidStatus

from gateway.auth import sign
from gateway.server import Server
from gateway.tls import Tls
from tests.gateway.certificate import make_certificate
from tests.gateway.node import Node
from tests.gateway.test_server import ask, closed, serving
from wellhead import Client, Disconnected

SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


async def get(server: Server, path: str) -> tuple[int, bytes]:
    """Status and body of a plain HTTP request."""

    def fetch() -> tuple[int, bytes]:
        try:
            with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=20) as response:
                return response.status, response.read()
        except HTTPError as error:
            return error.code, error.read()

    return await asyncio.to_thread(fetch)


async def test_tls_and_a_certificate_that_is_renewed(tmp_path: Path) -> None:
    tls = Tls(*make_certificate(tmp_path, "first"))
    node = Node(tmp_path, auto=True)
    node.list()
    server = Server(node.gateway, tls=tls)
    await server.start()
    try:
        assert server.url.startswith("wss://")
        with pytest.raises((InvalidMessage, OSError, EOFError)):
            await connect(server.url.replace("wss", "ws"), open_timeout=20)
        for name in ("first", "second"):
            if name == "second":
                make_certificate(tmp_path, name)
                assert tls.renew()
                assert not tls.renew()
            trusted = ssl.create_default_context(cafile=tmp_path / "cert.pem")
            async with connect(server.url, ssl=trusted) as socket:
                assert json.loads(await socket.recv())["ch"] == "hello"
                assert (await ask(socket, op="instruments"))["ok"]
            async with Client(server.url, ssl=trusted) as client:
                assert len(await client.instruments()) == 1
            with pytest.raises(Disconnected, match="CERTIFICATE_VERIFY_FAILED"):
                await Client(server.url).__aenter__()
        (tmp_path / "cert.pem").write_text("nothing")
        with pytest.raises(ssl.SSLError):
            tls.renew()
        async with connect(server.url, ssl=trusted) as socket:  # the old one goes on
            await socket.recv()
    finally:
        await server.stop()


async def test_pages_of_other_sites_cannot_connect(tmp_path: Path) -> None:
    async with serving(tmp_path, origins=("https://friend.example",)) as (_, server):
        for origin in ("https://friend.example", f"http://127.0.0.1:{server.port}", "http://127.0.0.1:1", None):
            async with connect(server.url, origin=origin) as socket:  # type: ignore[arg-type]
                await socket.recv()
        with pytest.raises(InvalidStatus, match="403"):
            await connect(server.url, origin="https://evil.example")  # type: ignore[arg-type]


async def test_an_address_has_a_number_of_connections(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections_per_ip=2) as (_, server):
        first, second = await connect(server.url), await connect(server.url)
        with pytest.raises(InvalidStatus, match="429"):
            await connect(server.url)
        await first.close()
        async with connect(server.url) as third:
            await third.recv()
        await second.close()
        while server.doors.open:
            await asyncio.sleep(0)


async def test_more_connections_than_there_may_be_are_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path, max_connections=1) as (_, server), connect(server.url) as held:
        await held.recv()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        assert (await ask(held, op="instruments"))["ok"]
        while server.doors.open > 1:
            await asyncio.sleep(0)


async def log_on(server: Server, node: Node, key: str, private_key: str | None = None) -> dict[str, Any]:
    async with connect(server.url) as socket:
        hello = json.loads(await socket.recv())
        signature = sign(private_key or node.private_keys[key], hello["challenge"], key, hello["ts"])
        return dict(await ask(socket, op="session.logon", key=key, ts=hello["ts"], sig=signature))


async def test_log_ons_that_fail_are_throttled(tmp_path: Path) -> None:
    async with serving(tmp_path, logon_failures_per_ip=3) as (node, server):
        right = node.create_key("good", "alice")
        wrong = node.create_key("other", "bob")
        assert (await log_on(server, node, "good"))["ok"]
        for _ in range(3):
            assert (await log_on(server, node, "good", wrong))["err"]["name"] == "BAD_SIGNATURE"
        refused = (await log_on(server, node, "good", right))["err"]
        assert refused["name"] == "RATE_LIMIT"
        assert 0 < refused["retry_us"] <= 10_000_000
        assert node.gateway.counts.logons == {"OK": 1, "BAD_SIGNATURE": 3, "RATE_LIMIT": 1}


async def test_health_and_readiness(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, server):
        status, body = await get(server, "/healthz")
        assert (status, json.loads(body)["status"]) == (200, "ok")
        assert await get(server, "/readyz") == (200, b'{"ready":true}\n')
        node.gateway.readiness.is_stopping = True
        status, body = await get(server, "/readyz")
        assert (status, json.loads(body)) == (503, {"ready": False, "why": "stopping"})


def metrics_of(body: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


async def test_metrics(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, server), connect(server.url) as socket:
        await socket.recv()
        await ask(socket, op="subscribe", channels=[{"name": "l1", "symbols": "*"}])
        await ask(socket, op="balances")
        await socket.send("{")
        status, body = await get(server, "/metrics")
        while metrics_of(body)["wellhead_messages_total"] < 3:
            status, body = await get(server, "/metrics")
        found = metrics_of(body)
        assert status == 200
        assert (found["wellhead_sessions"], found["wellhead_topics"], found["wellhead_instruments"]) == (1, 1, 1)
        assert found["wellhead_errors_totalNOT_LOGGED_ON"] == found["wellhead_errors_totalBAD_MESSAGE"] == 1
        assert found["wellhead_commands_total"] == 1


async def test_metrics_are_not_for_everybody(tmp_path: Path) -> None:
    async with serving(tmp_path, metrics_from=("192.0.2.0/24",)) as (_, server):
        assert (await get(server, "/metrics"))[0] == 404


async def test_what_the_log_of_events_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path) as (node, server):
        private = node.create_key("good", "alice")
        assert (await log_on(server, node, "good"))["ok"]
        async with connect(server.url) as socket:
            hello = json.loads(await socket.recv())
            await socket.send(
                json.dumps({"op": "session.logon", "id": 1, "key": "good", "ts": hello["ts"], "sig": "A"})
            )
            assert (await closed(socket))[0] == 4003
    events = {record.msg: record for record in caplog.records if record.name.startswith("gateway")}
    assert events["logon"].key == "good" and events["logon"].account == "alice"  # type: ignore[attr-defined]
    assert events["logon_refused"].why == "BAD_SIGNATURE"  # type: ignore[attr-defined]
    assert (events["closed"].code, events["closed"].ip) == (4003, "127.0.0.1")  # type: ignore[attr-defined]
    assert private not in caplog.text


@pytest.mark.skipif(int(SOMAXCONN.read_text()) < 1_000 if SOMAXCONN.exists() else True, reason="the kernel keeps fewer")
async def test_all_may_come_at_once(tmp_path: Path) -> None:
    """As after a restart: the kernel keeps them until the server has time, and sends none away to try again."""
    async with serving(tmp_path) as (_, server):
        with contextlib.ExitStack() as stack:
            for _ in range(600):  # the server does not run meanwhile
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=0.9))
