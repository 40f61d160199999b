"""One file that says what a cluster is; every process of it reads the same."""

from pathlib import Path

import msgspec

from engine.jetstream import Servers, Shard


class ConfigError(ValueError):
    """The file cannot be read, or says what cannot be."""


class NatsConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The servers, and who we are there."""

    urls: tuple[str, ...]
    user: str = ""
    password: str = ""
    system_user: str = ""  # of the system account: asks every server whether it syncs always
    system_password: str = ""
    copies: int = 3  # of each stream

    @property
    def servers(self) -> Servers:
        return Servers(**msgspec.structs.asdict(self))


class ClusterConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A shard of the market and where its parts are."""

    nats: NatsConfig
    name: str = "ONE"  # of the shard: letters, digits, - and _
    markets: tuple[str, ...] = ()  # CLASS-REGION pairs that it lists; empty: every class in every region
    list_hours: int = 0  # how many hours ahead; 0: to the end of D+2
    keys: Path = Path("keys.json")  # public keys; every gateway needs the same
    host: str = "127.0.0.1"  # where gateways listen
    paper_micros: int = 0  # paper trading: what each account that logs on for the first time is given
    patience_ms: int = 250  # how long a replica waits for the others' entry before it writes its own
    poll_ms: int = 50  # how often a replica looks at its clock
    snapshot_every_commands: int = 500_000  # commands between two snapshots in the bucket
    window: int = 16  # messages of one writer under way
    restart_grace_ms: int = 10_000  # what orders of a lost gateway's sessions wait
    archives: int = 1  # how many archives (books have one each) must hold an entry of the journal before it may go
    keep_entries: int = 100_000  # of the journal that stay in the stream in any case
    trim_every_s: int = 60  # how often whoever keeps an archive looks what may go; 0: never
    mark_every_ms: int = 5_000  # how often each reader notes how far it is
    absent_s: int = 86_400  # how long a replica or a gateway that is not heard of is waited for; archives are for ever

    @property
    def shard(self) -> Shard:
        return Shard(self.name)


def read_config(path: Path) -> ClusterConfig:
    """Raises ConfigError."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=ClusterConfig, dec_hook=lambda kind, value: kind(value))
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not config.name or not config.name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"{path}: name {config.name!r} has other than letters, digits, - and _")
    return config


def write_config(path: Path, config: ClusterConfig) -> None:
    """Write it so that only its owner can read it: it has passwords."""
    path.touch(mode=0o600)
    path.write_text("".join(_lines(msgspec.to_builtins(config, enc_hook=str))), encoding="utf-8")


def _lines(values: dict[str, object]) -> list[str]:
    """Scalars first, then tables. TOML and JSON agree on what is used here: texts, whole numbers, lists of texts."""
    plain = [f"{name} = {_value(value)}\n" for name, value in values.items() if not isinstance(value, dict)]
    tables = [[f"\n[{name}]\n", *_lines(value)] for name, value in values.items() if isinstance(value, dict)]
    return [*plain, *(line for table in tables for line in table)]


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()
