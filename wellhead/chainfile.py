"""The file of `wellhead serve --chain`: the registry (`settlement/stablecoins.py`), and where the keys are.

[keys.base]                       # of the chain of that name
settler = { keystore = "settler.json", password_env = "SETTLER_PASSWORD" }
root_setter = { library = "/usr/lib/softhsm/libsofthsm2.so", token = "wellhead", label = "roots", pin_env = "HSM_PIN" }
signers = [ { keystore = "one.json", password_env = "ONE_PASSWORD" }, { secret_env = "TWO_SECRET" } ]
guardian = { secret_env = "GUARDIAN_SECRET" }    # may be left out, as the next
locker = { secret_env = "LOCKER_SECRET" }

Passwords, PINs and secrets are never in the file: it names the environment variable that has each.
"""

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from settlement.chain import Chain
from settlement.custody import Custody
from settlement.plans import LedgerPolicy
from settlement.records import Records
from settlement.signer import Guard, KeystoreSigner, MemorySigner, Signer, SignerError, TokenSigner
from settlement.site import Keys
from settlement.stablecoins import RegistryError, Stablecoins


@dataclass(frozen=True)
class KeySet:
    """A chain's keys, opened. The last two may be left out: then nothing is disputed or locked without an operator."""

    settler: Signer
    root_setter: Signer
    signers: tuple[Signer, ...]
    guardian: Signer | None = None
    locker: Signer | None = None


@dataclass(frozen=True)
class ChainFile:
    """What the file says, with its keys opened."""

    coins: Stablecoins
    keys: dict[str, KeySet]

    @classmethod
    def load(cls, path: Path) -> "ChainFile":
        """Raises RegistryError, SignerError, OSError."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RegistryError(f"{path}: {error}") from error
        tables = content.pop("keys", {})
        coins = Stablecoins.parse(content)
        missing = [network.name for network in coins.networks() if network.name not in tables or not network.url]
        if missing:
            raise RegistryError(f"{path}: chain {missing[0]} has no keys or no url")
        return cls(coins, {network.name: _keys(path, tables[network.name]) for network in coins.networks()})

    def chains(self) -> dict[str, Chain]:
        """The nodes, by the names of their chains."""
        return {network.name: Chain.at(network.url, network.finality) for network in self.coins.networks()}

    def custody(self, directory: Path, venue: str, now_s: Callable[[], int]) -> Custody:
        """The custody of a settlement directory that has its books. Raises LedgerError where their server does not answer."""
        return make_custody(directory, self.coins, self.chains(), self.keys, venue, now_s)


def make_custody(  # noqa: PLR0913, PLR0917 - what it joins
    directory: Path, coins: Stablecoins, chains: dict[str, Chain], keys: dict[str, KeySet], venue: str,
    now_s: Callable[[], int],
) -> Custody:  # fmt: skip
    """Custody whose keys stand behind policies with connections of their own to the books."""
    records = Records(directory, coins, venue, now_s)
    policy = LedgerPolicy(records.books, coins, now_s, records.plan_again)
    guarded = {
        name: Keys(
            Guard(own.settler, policy),
            Guard(own.root_setter, policy),
            [Guard(signer, policy) for signer in own.signers],
            None if own.guardian is None else Guard(own.guardian, policy),
            None if own.locker is None else Guard(own.locker, policy),
        )
        for name, own in keys.items()
    }
    return Custody(directory, coins, chains, guarded, venue, now_s)


def _keys(path: Path, table: dict[str, Any]) -> KeySet:
    try:
        signers = tuple(_signer(path, entry) for entry in table["signers"])
        settler, root_setter = (_signer(path, table[name]) for name in ("settler", "root_setter"))
        guardian, locker = (_signer(path, table[name]) if name in table else None for name in ("guardian", "locker"))
        return KeySet(settler, root_setter, signers, guardian, locker)
    except (KeyError, TypeError) as error:
        raise RegistryError(f"{path}: the keys of a chain are settler, root_setter and signers: {error!r}") from error


def _signer(path: Path, entry: dict[str, str]) -> Signer:
    if "keystore" in entry:
        return KeystoreSigner(path.parent / entry["keystore"], _secret(entry["password_env"]))
    if "library" in entry:
        return TokenSigner(entry["library"], entry["token"], entry["label"], _secret(entry["pin_env"]))
    return MemorySigner(bytes.fromhex(_secret(entry["secret_env"]).removeprefix("0x")))


def _secret(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SignerError(f"the environment variable {name} is not set")
    return value
