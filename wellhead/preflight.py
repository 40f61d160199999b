"""Could a node start with this configuration? Looks at everything that a start would stumble over, and changes nothing."""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from engine.catalogue import CatalogueError
from gateway.auth import KeyStore, KeyStoreError
from gateway.tls import Tls
from wellhead.additions import load_catalogue
from wellhead.config import Config
from wellhead.examine import DoctorError, examine

LEAST_FREE_BYTES = 1 << 30


def problems(config: Config) -> list[str]:
    """What is wrong, in words; empty when nothing is."""
    looks = (_directory(config.data_dir), _data(config), _tls(config), _port(config), _catalogue(config))
    return [problem for look in looks for problem in look]


def _directory(path: Path) -> Iterator[str]:
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        yield f"{existing} is not a directory"
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield f"{existing} cannot be written to"
    space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize
    if free < LEAST_FREE_BYTES:
        yield f"{existing} has {free >> 20} MiB left; a log needs {LEAST_FREE_BYTES >> 20}"


def _data(config: Config) -> Iterator[str]:
    """What a start would refuse in the directory; reads the whole log, where there is one."""
    if not config.log_dir.is_dir():
        yield from _keys(config)
        return
    try:
        findings = examine(config.data_dir).findings
    except DoctorError as error:
        yield str(error)
        return
    yield from (f"{one.what}. {one.advice}: {one.command}" for one in findings if one.stops)


def _keys(config: Config) -> Iterator[str]:
    try:
        if config.keys_path.exists():
            KeyStore(config.keys_path)
    except (KeyStoreError, OSError) as error:
        yield f"the keys cannot be read: {error}"


def _tls(config: Config) -> Iterator[str]:
    if config.tls_cert is None or config.tls_key is None:
        return
    try:
        Tls(config.tls_cert, config.tls_key)
    except (ssl.SSLError, OSError) as error:
        yield f"{config.tls_cert} and {config.tls_key} are no certificate with its key: {error}"
    if config.tls_key.exists() and config.tls_key.stat().st_mode & 0o077:
        yield f"{config.tls_key} can be read by others than its owner"


def _port(config: Config) -> Iterator[str]:
    try:
        with socket.create_server((config.host, config.port)):
            pass
    except OSError as error:
        yield f"{config.host}:{config.port} cannot be listened on: {error}"


def _catalogue(config: Config) -> Iterator[str]:
    try:
        load_catalogue(config.data_dir)
    except CatalogueError as error:
        yield str(error)
