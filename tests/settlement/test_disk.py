"""Files that must be there whole or not at all, whenever the process ends."""

import os
from pathlib import Path

import pytest

from settlement.disk import write_whole
from settlement.tickets import Signer


def test_the_exchanges_key_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node killed while it made its key began with an empty one, and never started again."""
    path = tmp_path / "exchange.key"

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            Signer(path)
    assert not path.exists()
    assert Signer(path).public_key == Signer(path).public_key
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.new"))


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
