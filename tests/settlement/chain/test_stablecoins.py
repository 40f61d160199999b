"""The registry: what it reads, what it refuses, and what it compares with the chain."""

import tomllib
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settlement.stablecoins import SALES_END, Haircut, Issuer, RegistryError, Stablecoins, Status, Token, check
from settlement.typed_data import Domain
from tests.settlement.chain.anvil import Site

TEXT = """
[[issuer]]
name = "Circle"
status = [ { since = 2025-07-18, status = "pending" }, { since = 2027-01-18, status = "permitted" } ]

[[chain]]
name = "base"
chain_id = 8453
url = "http://127.0.0.1:8545"
confirmations = 5
first_block = 20_000_000

[[token]]
number = 1
symbol = "USDC"
chain = "base"
address = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
vault = "0x00000000219ab540356cBB839Cbe05303d7705Fa"
decimals = 6
name = "USD Coin"
version = "2"
code_hash = "0x1111111111111111111111111111111111111111111111111111111111111111"
vault_code_hash = "0x2222222222222222222222222222222222222222222222222222222222222222"
issuer = "Circle"
haircut = { par_from_ppm = 990_000 }
limits = { account_day_micros = 5_000_000 }
"""


def token(text: str = TEXT) -> Token:
    return Stablecoins.parse(tomllib.loads(text)).tokens[1]


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "coins.toml"
    path.write_text(TEXT)
    read = Stablecoins.load(path).tokens[1]
    assert (read.symbol, read.network.chain_id, read.network.finality, read.decimals) == ("USDC", 8453, None, 6)
    assert read.haircut == Haircut(par_from_ppm=990_000)
    assert read.limits.account_day_micros == 5_000_000
    assert read.domain == Domain("USD Coin", "2", 8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number = 1", "number = 0", "out of range"),
        ("decimals = 6", 'decimals = "6"', "decimals must be int"),
        ("0x833589fC", "0x833589fc", "checksum"),
        ("0x833589fCD6", "0x", "not an address"),
        ("0x1111", "0x", "32 bytes"),
        ("0x1111", "0xzz11", "hexadecimal"),
        ('chain = "base"', 'chain = "bse"', "no chain 'bse'"),
        ('issuer = "Circle"', 'issuer = "Square"', "no issuer 'Square'"),
        ("chain_id = 8453", "chain_id = 0", "chain_id"),
        ("confirmations = 5", "confirmation = 5", "there is no confirmation"),
        ("confirmations = 5", "confirmations = -5", "below zero"),
        ('"permitted"', '"blessed"', "'blessed' is none of"),
        ("2027-01-18", "2025-01-18", "must rise"),
        ("[[token]]", "[token]", "must be tables"),
        ("account_day_micros = 5_000_000", "account_day_micros = true", "must be int"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(RegistryError, match=message):
        token(TEXT.replace(old, new, 1))


def test_a_number_or_vault_is_not_used_twice() -> None:
    second = TEXT[TEXT.index("[[token]]") :]
    with pytest.raises(RegistryError, match="twice"):
        token(TEXT + second)
    with pytest.raises(RegistryError, match="vault"):
        token(TEXT + second.replace("number = 1", "number = 2"))


def test_an_issuer_is_taken_when_it_is_permitted_or_while_the_law_still_allows_it() -> None:
    pending = Issuer("A", (Status(date(2025, 7, 18), "pending"),))
    assert not pending.takes_deposits_on(date(2025, 7, 17))
    assert pending.takes_deposits_on(date(2025, 7, 18))
    assert pending.takes_deposits_on(date(2028, 7, 17))
    assert not pending.takes_deposits_on(SALES_END)
    later = Issuer("B", (*pending.history, Status(date(2027, 1, 18), "permitted"), Status(date(2029, 1, 1), "refused")))
    assert later.status_on(date(2027, 1, 17)) == "pending"
    assert later.takes_deposits_on(date(2028, 12, 31))
    assert not later.takes_deposits_on(date(2029, 1, 1))
    assert Issuer("C", (Status(date(2027, 1, 1), "registered"),)).takes_deposits_on(SALES_END)


@given(st.integers(1, 10**15), st.integers(0, 1_100_000))
def test_a_haircut_never_gives_more_than_a_dollar_nor_more_than_the_price(quantity: int, price_ppm: int) -> None:
    haircut = Haircut()
    credit = haircut.credit(quantity, price_ppm)
    if price_ppm < haircut.stop_below_ppm:
        assert credit is None
    elif price_ppm >= haircut.par_from_ppm:
        assert credit == quantity
    else:
        assert credit is not None
        assert 0 <= credit * 1_000_000 <= quantity * (price_ppm - haircut.margin_ppm)


@given(st.integers(0, 10**30), st.sampled_from([0, 2, 6, 8, 18]))
def test_units_come_back_and_nothing_is_made_by_rounding(units: int, decimals: int) -> None:
    coin = replace(token(), decimals=decimals)
    micros = coin.to_micros(units)
    assert coin.to_units(micros) <= units
    assert units - coin.to_units(micros) < 10 ** max(0, decimals - 6)
    assert coin.units_within(micros) == coin.to_units(micros)


def test_a_dollar_is_a_dollar_with_six_and_with_eighteen_decimals() -> None:
    assert replace(token(), decimals=6).to_micros(1_000_000) == 1_000_000
    assert replace(token(), decimals=18).to_micros(10**18) == 1_000_000
    assert replace(token(), decimals=18).to_units(1) == 10**12
    with pytest.raises(ValueError, match="2 decimals"):
        replace(token(), decimals=2).to_units(1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"decimals": 18}, "decimals is 6"),
        ({"code_hash": bytes(32)}, "code is"),
        ({"name": "USD Coin"}, "signing domain"),
        ({"version": "1"}, "signing domain"),
        ({"vault_code_hash": bytes(32)}, "vault's code"),
        ({"address": b"\x01" * 20}, "code is|cannot be read"),
    ],
)
def test_a_registry_that_the_chain_contradicts_is_refused(site: Site, change: dict[str, object], what: str) -> None:
    site.again()
    good = site.coins.tokens[1]
    check(site.node.chain, [good])
    with pytest.raises(RegistryError, match=what):
        check(site.node.chain, [replace(good, **change)])  # type: ignore[arg-type]


def test_another_chain_or_another_coins_vault_is_refused(site: Site) -> None:
    site.again()
    good, other = site.coins.tokens[1], site.coins.tokens[2]
    with pytest.raises(RegistryError, match="chain id"):
        check(site.node.chain, [replace(good, network=replace(good.network, chain_id=1))])
    with pytest.raises(RegistryError, match="vault's token"):
        check(site.node.chain, [replace(good, vault=other.vault, vault_code_hash=other.vault_code_hash)])
