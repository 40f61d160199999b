"""A new class and a new region come into a running exchange, and a wrong file changes nothing."""

from pathlib import Path

import pytest

from engine.catalogue import Catalogue, CatalogueError
from engine.types import Status
from tests.gateway.node import START_NS
from wellhead import Client
from wellhead.additions import FILE_NAME, Additions, load_catalogue
from wellhead.config import Config
from wellhead.node import Node

NEW = """
[[class]]
id = 77
name = "X900"
hardware = "X900 with 1 TB"
gpus_per_lot = 4
tick_micros = 500
seed_price_micros = 9_000_000
watts_per_lot = 5_000

[[region]]
id = 78
name = "MOON"
place = "Mare Imbrium"
zone = "LUN"
"""


async def test_a_new_class_is_listed_and_traded_without_a_restart(tmp_path: Path) -> None:
    config = Config(tmp_path, port=0, list_hours=1, paper_micros=10**12, poll_ms=10)
    node = Node(config, clock=lambda: START_NS)
    await node.start()
    try:
        async with Client(node.server.url) as client:
            before = {one.sym for one in await client.instruments()}
            listings = await client.listings().ready()
            (tmp_path / FILE_NAME).write_text(NEW, encoding="utf-8")
            symbols: set[str] = set()
            async for event in listings:
                symbols |= {one.sym for one in event.instruments} - before
                if any(symbol.startswith("X900-MOON") for symbol in symbols):
                    break
            (symbol,) = (symbol for symbol in symbols if symbol.startswith("X900-MOON"))
            (found,) = await client.instruments("X900", "MOON")
            assert (found.sym, found.gpus_per_lot) == (symbol, 4)
            assert any(one.startswith("H100S-MOON") for one in symbols)
            assert len(await client.instruments("H100S", "USE")) == 1  # nothing is listed twice
    finally:
        await node.stop()
    again = Node(config, clock=lambda: START_NS)  # the addition is part of the directory
    assert again.catalogue.class_by_id[77].name == "X900"
    books = again.exchange.engine.memory.arrays["books"]
    assert (books["status"] == Status.CONTINUOUS).sum() == len(symbols | before)
    await again.start()
    await again.stop()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[class]", "TOMLDecodeError"),
        ("[fees]\ntaker_ppm = 1\n", "fees cannot be added"),
        (NEW.replace("watts_per_lot = 5_000\n", ""), "watts_per_lot"),
        (NEW.replace("id = 77", "id = 1"), "same id"),
        (NEW.replace("X900", "H100S"), "there already, with other terms"),
        (NEW.replace("tick_micros = 500", "tick_micros = 7"), "whole number of ticks"),
        ("class = 3", "TypeError"),
    ],
)
def test_a_wrong_file_is_refused_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    catalogue = Catalogue.load()
    additions = Additions(catalogue, tmp_path)
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    assert not additions.look()
    assert said in caplog.text
    assert catalogue == Catalogue.load()
    with pytest.raises(CatalogueError, match=said):
        load_catalogue(tmp_path)
    (tmp_path / FILE_NAME).write_text(NEW + "\n", encoding="utf-8")
    assert additions.look()
    assert catalogue.class_by_name["X900"].id == 77
    assert not additions.look()
    (tmp_path / FILE_NAME).unlink()
    assert not additions.look()
    assert "X900" in catalogue.class_by_name  # what is in the log stays
