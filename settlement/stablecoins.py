"""The registry: which stablecoins on which chains count as money here, as a TOML file, and what it says read back.

Numbers are in the log: a token's number is never changed and never used again. Everything that a chain can contradict
(chain id, code, decimals, signing domain, the vault's token) is compared with the chain at every start; a difference
is a refusal to start, because it means other money than the members were promised.

Amounts: a token has its own smallest units, the books count micro-dollars. One unit of the token is one dollar owed, at
whatever price it trades elsewhere, when it leaves; when it comes in below its price, see `Haircut`.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from eth_utils.address import is_checksum_address, to_canonical_address, to_checksum_address

from settlement.abi import AbiError, interface
from settlement.accounts import MONEY_DECIMALS
from settlement.chain import CallRefused, Chain
from settlement.flows import ADDRESS_BYTES
from settlement.typed_data import Domain
from settlement.vault import vault_domain

MILLION = 1_000_000
TX_GAS = 16_777_216
"""The most that one transaction may use (EIP-7825)."""
SALES_END = date(2028, 7, 18)
"""GENIUS Act, section 3(b): three years after its enactment nobody may offer other stablecoins to persons in the US
than those of permitted issuers, and of foreign ones that are registered."""
STATUSES = ("permitted", "registered", "pending", "refused")
"""Of an issuer: a permitted payment stablecoin issuer; a foreign one that is registered; neither yet; out."""


class RegistryError(ValueError):
    """The file is wrong, or the chain says otherwise; the message names entry and field."""


@dataclass(frozen=True, slots=True)
class Status:
    """What an issuer is from a day on."""

    since: date
    status: str


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who redeems a stablecoin."""

    name: str
    history: tuple[Status, ...]

    def status_on(self, day: date) -> str:
        """`refused` before the first entry."""
        known = [entry.status for entry in self.history if entry.since <= day]
        return known[-1] if known else "refused"

    def takes_deposits_on(self, day: date) -> bool:
        """New money is taken from those that are permitted or registered, and up to SALES_END from those still pending.
        What is there may always leave.
        """
        status = self.status_on(day)
        return status in {"permitted", "registered"} or (status == "pending" and day < SALES_END)


@dataclass(frozen=True, slots=True)
class Haircut:
    """What a deposit is worth when the stablecoin has lost its peg. Prices and rates in ppm of a dollar."""

    par_from_ppm: int = 995_000  # from this price up a unit is a dollar
    margin_ppm: int = 10_000  # below, what is taken off the price, because it may fall on
    stop_below_ppm: int = 900_000  # below this nothing is credited: the deposit waits for an operator

    def credit(self, quantity_micros: int, price_ppm: int) -> int | None:
        """Dollars for a deposit, rounded down; None when it has to wait. Never more than a dollar a unit."""
        if price_ppm >= self.par_from_ppm:
            return quantity_micros
        if price_ppm < self.stop_below_ppm:
            return None
        return quantity_micros * max(0, price_ppm - self.margin_ppm) // MILLION


@dataclass(frozen=True, slots=True)
class Limits:
    """In micro-dollars. Deposits outside wait for an operator, withdrawals outside are refused, above a rate they wait."""

    min_deposit_micros: int = 1_000_000
    max_deposit_micros: int = 1_000_000_000_000
    min_withdrawal_micros: int = 1_000_000
    max_withdrawal_micros: int = 100_000_000_000
    account_hour_micros: int = 100_000_000_000
    account_day_micros: int = 500_000_000_000
    venue_hour_micros: int = 1_000_000_000_000
    venue_day_micros: int = 5_000_000_000_000


@dataclass(frozen=True, slots=True)
class Network:
    """A chain and the node through which it is seen."""

    name: str
    chain_id: int
    url: str = ""
    finality: int | None = None  # blocks; None: the node's own tag
    confirmations: int = 3  # blocks until a deposit is shown as pending
    first_block: int = 0  # the vaults' deployment: nothing before it is looked at
    max_gas: int = TX_GAS  # of one transaction
    max_fee_wei: int = 500_000_000_000  # for a unit of gas; a policy refuses more
    bump_after_s: int = 90  # a transaction that is not in a block by then is offered for more


@dataclass(frozen=True)
class Token:
    """A stablecoin on a chain, and the vault that holds it for us."""

    number: int
    symbol: str
    network: Network
    address: bytes
    vault: bytes
    decimals: int
    name: str  # of the EIP-712 domain
    version: str
    code_hash: bytes
    vault_code_hash: bytes
    issuer: Issuer
    haircut: Haircut = Haircut()
    limits: Limits = Limits()

    @cached_property
    def domain(self) -> Domain:
        """What permits and authorizations are signed for."""
        return Domain(self.name, self.version, self.network.chain_id, to_checksum_address(self.address))

    @cached_property
    def vault_domain(self) -> Domain:
        """What withdrawals and leaves are bound to."""
        return vault_domain(self.network.chain_id, to_checksum_address(self.vault))

    def to_micros(self, units: int) -> int:
        """The token's smallest units as micro-units, rounded down: what is smaller stays in the vault."""
        shift = self.decimals - MONEY_DECIMALS
        return units // int(10**shift) if shift >= 0 else units * int(10**-shift)

    def units_within(self, micros: int) -> int:
        """The most smallest units that some micro-units cover."""
        shift = self.decimals - MONEY_DECIMALS
        return micros * int(10**shift) if shift >= 0 else micros // int(10**-shift)

    def to_units(self, micros: int) -> int:
        """Micro-units as the token's smallest units. Raises ValueError where that would lose something."""
        shift = self.decimals - MONEY_DECIMALS
        if shift >= 0:
            return micros * int(10**shift)
        units, rest = divmod(micros, int(10**-shift))
        if rest:
            raise ValueError(f"{micros} micros cannot be paid in a token of {self.decimals} decimals")
        return units


@dataclass(frozen=True)
class Stablecoins:
    """All tokens, by number."""

    tokens: dict[int, Token] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Stablecoins":
        """Read a file. Raises RegistryError, OSError."""
        try:
            return cls.parse(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RegistryError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, content: dict[str, Any]) -> "Stablecoins":
        """Raises RegistryError."""
        issuers = {entry.name: entry for entry in map(_issuer, _tables(content, "issuer"))}
        networks = {entry.name: entry for entry in map(_network, _tables(content, "chain"))}
        tokens = [_token(entry, networks, issuers) for entry in _tables(content, "token")]
        _refuse_repeats("number", [token.number for token in tokens])
        _refuse_repeats("vault", [(token.network.chain_id, token.vault) for token in tokens])
        _refuse_repeats("chain id", [network.chain_id for network in networks.values()])
        return cls({token.number: token for token in tokens})

    def networks(self) -> list[Network]:
        """The chains in use."""
        return list({token.network.name: token.network for token in self.tokens.values()}.values())

    def on(self, network: Network) -> list[Token]:
        """The tokens on a chain."""
        return [token for token in self.tokens.values() if token.network.name == network.name]


def parse_address(text: str) -> bytes:
    """An address as people write it, with capitals as its checksum: without them one wrong letter is somebody else.
    Raises ValueError.
    """
    if not is_checksum_address(text):
        raise ValueError(f"{text!r} is not an address, or its checksum is wrong")
    return to_canonical_address(text)


def check(chain: Chain, tokens: Sequence[Token]) -> None:
    """Compare what the registry says of a chain's tokens with the chain. Raises RegistryError at the first difference."""
    for token in tokens:
        for what, expected, read in _claims(chain, token):
            try:
                found = read()
            except (CallRefused, AbiError) as error:
                raise RegistryError(f"token {token.number} {token.symbol}: {what} cannot be read: {error}") from error
            if found != expected:
                raise RegistryError(
                    f"token {token.number} {token.symbol}: {what} is {_shown(found)} on the chain, not {_shown(expected)}"
                )


def _claims(chain: Chain, token: Token) -> list[tuple[str, Any, Any]]:
    """(what, as the registry has it, how to read it)."""
    coin, vault = interface("TestDollar"), interface("Vault")

    def ask(of: Any, address: bytes, function: str) -> Any:
        return of.result(function, chain.call(address, of.call(function)))

    return [
        ("chain id", token.network.chain_id, chain.chain_id),
        ("code", token.code_hash, lambda: chain.code_hash(token.address)),
        ("decimals", token.decimals, lambda: ask(coin, token.address, "decimals")),
        ("signing domain", token.domain.separator, lambda: ask(coin, token.address, "DOMAIN_SEPARATOR")),
        ("vault's code", token.vault_code_hash, lambda: chain.code_hash(token.vault)),
        ("vault's token", to_checksum_address(token.address), lambda: ask(vault, token.vault, "token")),
        (
            "vault's signing domain",
            token.vault_domain.separator,
            lambda: ask(vault, token.vault, "DOMAIN_SEPARATOR"),
        ),
    ]


def _shown(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


# Reading the file


def _tables(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise RegistryError(f"{name} must be tables, [[{name}]]")
    return found


def _refuse_repeats(what: str, values: list[Any]) -> None:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise RegistryError(f"{what} {_shown(value[-1] if isinstance(value, tuple) else value)} is there twice")


def _take(entry: dict[str, Any], where: str, name: str, kind: type, default: Any = None) -> Any:
    value = entry.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RegistryError(f"{where}: {name} must be {kind.__name__}, not {value!r}")
    return value


def _bytes(entry: dict[str, Any], where: str, name: str, size: int) -> bytes:
    text = _take(entry, where, name, str)
    try:
        value = parse_address(text) if size == ADDRESS_BYTES else bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise RegistryError(f"{where}: {name}: {error}") from error
    if len(value) != size:
        raise RegistryError(f"{where}: {name} {text} does not have {size} bytes")
    return value


def _numbers(entry: dict[str, Any], where: str, kind: type) -> dict[str, int]:
    names = set(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    unknown = set(entry) - names
    if unknown:
        raise RegistryError(f"{where}: there is no {min(unknown)}")
    values = {name: _take(entry, where, name, int) for name in entry}
    if any(value < 0 for value in values.values()):
        raise RegistryError(f"{where}: no value may be below zero")
    return values


def _issuer(entry: dict[str, Any]) -> Issuer:
    name = _take(entry, "issuer", "name", str)
    where = f"issuer {name}"
    history = []
    for step in _take(entry, where, "status", list, []):
        status = Status(_take(step, where, "since", date), _take(step, where, "status", str))
        if status.status not in STATUSES:
            raise RegistryError(f"{where}: status {status.status!r} is none of {', '.join(STATUSES)}")
        history.append(status)
    if [status.since for status in history] != sorted({status.since for status in history}):
        raise RegistryError(f"{where}: the dates of its status must rise")
    return Issuer(name, tuple(history))


def _network(entry: dict[str, Any]) -> Network:
    name = _take(entry, "chain", "name", str)
    where = f"chain {name}"
    numbers = dict(entry)
    del numbers["name"]
    url = _take(numbers, where, "url", str, "")
    numbers.pop("url", None)
    values = _numbers(numbers, where, Network)
    if values.get("chain_id", 0) < 1:
        raise RegistryError(f"{where}: chain_id must be a number above zero")
    return Network(name=name, url=url, **values)


def _token(entry: dict[str, Any], networks: dict[str, Network], issuers: dict[str, Issuer]) -> Token:
    symbol = _take(entry, "token", "symbol", str)
    where = f"token {symbol}"
    chain, issuer = _take(entry, where, "chain", str), _take(entry, where, "issuer", str)
    if chain not in networks or issuer not in issuers:
        raise RegistryError(f"{where}: there is no chain {chain!r} or no issuer {issuer!r}")
    number, decimals = _take(entry, where, "number", int), _take(entry, where, "decimals", int)
    if not 1 <= number < 2**31 or not 0 <= decimals <= 30:
        raise RegistryError(f"{where}: number {number} or decimals {decimals} is out of range")
    return Token(
        number=number,
        symbol=symbol,
        network=networks[chain],
        address=_bytes(entry, where, "address", 20),
        vault=_bytes(entry, where, "vault", 20),
        decimals=decimals,
        name=_take(entry, where, "name", str),
        version=_take(entry, where, "version", str),
        code_hash=_bytes(entry, where, "code_hash", 32),
        vault_code_hash=_bytes(entry, where, "vault_code_hash", 32),
        issuer=issuers[issuer],
        haircut=Haircut(**_numbers(entry.get("haircut", {}), where, Haircut)),
        limits=Limits(**_numbers(entry.get("limits", {}), where, Limits)),
    )
