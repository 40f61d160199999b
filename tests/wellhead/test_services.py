"""What a node does for its gateway: meters' reports come in over the wire, and a chain's desk speaks its words."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from gateway.auth import KeyStore, sign
from gateway.messages import Code, RequestError
from tests.gateway.test_server import ask
from tests.wellhead.test_channels import SetClock, running
from wellhead.services import ChainDesk


async def test_a_report_over_the_wire_is_looked_at_by_the_books(tmp_path: Path) -> None:
    private = KeyStore(tmp_path / "keys.json").create("k", "provider", scopes=("provide",))
    assert private is not None
    async with running(tmp_path, SetClock()) as node, connect(node.server.url) as socket:
        hello = json.loads(await socket.recv())
        sig = sign(private, hello["challenge"], "k", hello["ts"])
        assert (await ask(socket, op="session.logon", key="k", ts=hello["ts"], sig=sig))["ok"]
        refused = await ask(socket, op="delivery.report", report=base64.b64encode(b"no report").decode())
        assert (refused["err"]["code"], refused["err"]["field"]) == (Code.BAD_FIELD, "report")
        assert "BAD_REPORT" in refused["err"]["msg"]


@dataclass
class Address:
    token: int = 1
    symbol: str = "USDC"
    chain: str = "base"
    chain_id: int = 8453
    vault: str = "0xV"
    coin: str = "0xC"
    decimals: int = 6
    ref: str = "0x1"


class Desk:
    """Refuses what it is told to."""

    def __init__(self, code: str = "") -> None:
        self.code = code

    def addresses(self, _account: int) -> list[Address]:
        return [Address()]

    def set_home(self, _account: int, _address: str) -> None:
        if self.code:
            from wellhead.custody import MoneyError

            raise MoneyError(self.code, "not allowed")

    def withdrawal(self, *request: Any) -> Any:
        if self.code:
            from wellhead.custody import MoneyError

            raise MoneyError(self.code, "not allowed")
        return request


def test_the_desk_of_a_chain() -> None:
    pytest.importorskip("eth_utils")
    assert ChainDesk(Desk()).addresses(1)[0].contract == "0xC"
    ChainDesk(Desk()).set_home(1, "0xA")
    with pytest.raises(RequestError) as caught:
        ChainDesk(Desk("BAD_ADDRESS")).set_home(1, "0xA")
    assert caught.value.error.field == "home"
    assert ChainDesk(Desk()).withdrawal(1, 2, 3, "0xA", True) == (1, 2, 3, "0xA", True)
    for code, field in (("NOT_A_TOKEN", "coin"), ("BAD_ADDRESS", "to"), ("NO_HOME", "to"), ("BAD_AMOUNT", None)):
        with pytest.raises(RequestError) as caught:
            ChainDesk(Desk(code)).withdrawal(1, 2, 3, "0xA", False)
        assert caught.value.error.field == field
        assert caught.value.error.code == (Code.BAD_FIELD if field else Code.BAD_AMOUNT)
