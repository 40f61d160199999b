"""The catalogue: what it says is checked when it is read, it grows in place, and a symbol names one hour."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.catalogue import DEFAULT_PATH, Bands, Catalogue, CatalogueError, Contract, pack_id, unpack_id
from engine.engine import Engine
from engine.types import COMMAND, LISTING, EventKind, Kind

TEXT = DEFAULT_PATH.read_text(encoding="utf-8")
CATALOGUE = Catalogue.load()
CLASS = """
[[class]]
id = 77
name = "X900"
hardware = "X900"
gpus_per_lot = 4
tick_micros = 500
seed_price_micros = 9_000_000
watts_per_lot = 5_000
"""
REGION = '\n[[region]]\nid = 78\nname = "MOON"\nplace = "Mare Imbrium"\nzone = "LUN"\n'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[fees]", "[fee]"), "KeyError"),
        (("taker_ppm = 500", ""), "taker_ppm"),
        (("[venue]", "[venue"), "TOMLDecodeError"),
        (("watts_per_lot = 10_200", "wats = 1"), "TypeError"),
        (("id = 2\n", "id = 1\n"), r"two rows of \[\[class\]\] have the same id"),
        (('name = "H200S"', 'name = "H100S"'), "the same name"),
        (("maker_rebate_ppm = 200", "maker_rebate_ppm = 501"), "need 0 <= maker_rebate_ppm <= taker_ppm <= 10000"),
        (("taker_ppm = 500", "taker_ppm = 10_001"), "fees"),
        (("maker_rebate_ppm = 200", "maker_rebate_ppm = -1"), "fees"),
        (("band_ppm = 0 ", "band_ppm = 10_000_001 "), "a width of 10000001 ppm is not from 0 to 10000000"),
        (("collar_ppm = 0", "collar_ppm = -1"), "a width of -1 ppm"),
        (("tick_micros = 1_000", "tick_micros = 0"), "class H100S: a tick and a lot are not below one"),
        (("tick_micros = 1_000", "tick_micros = 300"), "H100S: a price is not a whole number of ticks of 300 micros"),
        (("tick_micros = 1_000", "tick_micros = 250"), "H100S: more than 262143 ticks up to the highest price"),
        (("gpus_per_lot = 8", "gpus_per_lot = 9"), "H100S: a lot may be worth 800000000 micros at the most"),
    ],
)
def test_a_wrong_catalogue_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "catalogue.toml"
    assert change[0] in TEXT
    path.write_text(TEXT.replace(*change, 1), encoding="utf-8")
    with pytest.raises(CatalogueError, match=said):
        Catalogue.load(path)


def test_without_bands_prices_go_as_far_as_they_like(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text("\n\n".join(part for part in TEXT.split("\n\n") if "[bands]" not in part), encoding="utf-8")
    assert Catalogue.load(path).bands == Bands()


def test_classes_and_regions_are_added_in_place(tmp_path: Path) -> None:
    catalogue, path = Catalogue.load(), tmp_path / "more.toml"
    contract = catalogue.contract("H100S-USE-H26112214")  # what was read from it before
    assert catalogue.class_by_id[1] is contract.gpu_class and 77 not in catalogue.class_by_id
    path.write_text(CLASS + REGION, encoding="utf-8")
    assert catalogue.add(path) == ["X900", "MOON"]
    assert catalogue.class_by_id[77].seed_price == 18_000
    assert catalogue.region_by_id[78].place == "Mare Imbrium"
    assert catalogue.contract("X900-MOON-H26112214").symbol == "X900-MOON-H26112214"
    assert catalogue.contract("H100S-USE-H26112214") == contract
    assert catalogue.add(path) == []
    path.write_text(REGION.replace("LUN", "SOL"), encoding="utf-8")
    with pytest.raises(CatalogueError, match="MOON is there already, with other terms"):
        catalogue.add(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[class]", "TOMLDecodeError"),
        ("[fees]\ntaker_ppm = 1\n", "fees cannot be added"),
        ("class = 3", "TypeError"),
        ("class = [3]", "TypeError"),
        ('region = ["x"]', "TypeError"),
        (CLASS.replace("hardware", "software"), "software"),
        (CLASS.replace("id = 77", "id = 1"), "same id"),
        (CLASS.replace("X900", "H100S"), "H100S is there already, with other terms"),
        (CLASS.replace("tick_micros = 500", "tick_micros = 7"), "whole number of ticks"),
    ],
)
def test_what_cannot_be_added_changes_nothing(tmp_path: Path, text: str, said: str) -> None:
    catalogue, path = Catalogue.load(), tmp_path / "more.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueError, match=f"more.toml: .*{said}|{said}"):
        catalogue.add(path)
    assert catalogue == CATALOGUE


@pytest.mark.parametrize(
    "symbol",
    ["", "H100S-USE", "H100S-USE-H2611221", "H100S-USE-H261122140", "h100s-USE-H26112214", "H100S-XXX-H26112214",
     "X100S-USE-H26112214", "H100S-USE-H26112214 ", "H100S-USE-D26112214"],
)  # fmt: skip
def test_what_names_no_contract(symbol: str) -> None:
    with pytest.raises(CatalogueError, match="is not CLASS-REGION-Hyymmddhh of this catalogue"):
        CATALOGUE.contract(symbol)


@pytest.mark.parametrize("hour", ["26113114", "26022900", "26112224", "26001201"])
def test_an_hour_that_there_is_not(hour: str) -> None:
    with pytest.raises(CatalogueError, match="no such hour"):
        CATALOGUE.contract(f"H100S-USE-H{hour}")


def test_a_listing_says_what_the_catalogue_says() -> None:
    bands = Bands(band_ppm=300_000, collar_ppm=50_000, dynamic_ppm=100_000)
    catalogue = replace(CATALOGUE, bands=bands)
    contract = catalogue.contract("H100S-USE-H26112214")
    assert contract == Contract(catalogue.class_by_name["H100S"], catalogue.region_by_name["USE"], 1_795_356_000)
    listing = catalogue.listing(contract, 1, 5, 2_650)
    fields: dict[str, Any] = dict(zip(LISTING.names or (), listing[0].item(), strict=True))
    assert fields["kind"] == Kind.LIST
    assert fields["gate_ns"] == (1_795_356_000 - 15 * 60) * 10**9
    assert (fields["lot_tick_micros"], fields["max_price"], fields["reference_price"]) == (8_000, 100_000, 2_650)
    assert (fields["band_ppm"], fields["collar_ppm"], fields["dynamic_ppm"]) == (300_000, 50_000, 100_000)
    assert unpack_id(listing["symbol"][0]) == "H100S-USE-H26112214"
    listing["seq"] = 1
    assert Engine().apply(listing.view(COMMAND))["kind"].tolist() == [EventKind.LISTED]


def test_words_hold_forty_characters() -> None:
    assert unpack_id(pack_id("x" * 40)) == "x" * 40
    assert unpack_id(pack_id("")) == ""
    with pytest.raises(ValueError, match="longer than 40 bytes"):
        pack_id("x" * 41)
    with pytest.raises(ValueError, match="ascii"):
        pack_id("é")
