"""The numbers an operator may set, with their defaults."""

from dataclasses import dataclass, field
from pathlib import Path

from engine.state import Limits
from gateway.config import GatewayConfig


@dataclass(frozen=True, slots=True)
class Config:
    """One node. Everything it keeps is under `data_dir`: log/, snapshots/, settlement/, keys.json."""

    data_dir: Path  # where everything is kept; the option `--data`
    host: str = "127.0.0.1"  # the address to listen on
    port: int = 8765  # 0: any free one
    tls_cert: Path | None = None  # PEM files; with both the port speaks TLS
    tls_key: Path | None = None  # its private key
    chain: Path | None = None  # the file of stablecoins, chains and keys; without it nothing is on a chain
    durable: bool = True  # fdatasync before every answer; False only to measure what that costs
    markets: tuple[str, ...] = ()  # CLASS-REGION pairs to list; empty: every class in every region
    list_hours: int = 0  # how many hours ahead to list; 0: to the end of D+2, as the catalogue says
    paper_micros: int = 0  # paper trading: what each account that logs on for the first time is given
    poll_ms: int = 50  # how often the calendar is looked at
    max_frame_commands: int = 16_384  # commands in one log frame; the rest wait for the next
    snapshot_every_commands: int = 2_000_000  # commands between two snapshots; one is also written at a stop
    fork_snapshots: bool = True  # a forked process writes them; False: the market waits while its state is copied
    settlement_queue_batches: int = 1_024  # batches the books may lag before the market waits for them
    books_pause_ms: int = 40  # between two bookings: each is a transaction, so one takes in many batches
    books_process: bool = True  # the books in a process of their own; else on a thread of the market's
    ledger: str = ""  # where the books are: "sqlite", or postgresql://...; empty: where they were last time
    limits: Limits = field(default_factory=Limits)
    gateway: GatewayConfig = field(default_factory=GatewayConfig)

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "log"

    @property
    def snapshot_dir(self) -> Path:
        return self.data_dir / "snapshots"

    @property
    def settlement_dir(self) -> Path:
        return self.data_dir / "settlement"

    @property
    def keys_path(self) -> Path:
        return self.data_dir / "keys.json"
