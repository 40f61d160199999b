from collections.abc import Iterator
from pathlib import Path

import pytest

from settlement.embedded import Terms
from tests.settlement.chain.anvil import SECRETS, NoAnvil, Site, anvil, network_of
from tests.settlement.chain.rig import Rig, deployed


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A node with two test dollars, each with its vault. Skipped with the reason where there is no anvil."""
    try:
        with anvil() as node:
            yield Site(node, deployed(node.chain, network_of(node), SECRETS, 2, Terms()))
    except NoAnvil as error:
        pytest.skip(str(error))


@pytest.fixture
def rig(site: Site, tmp_path: Path) -> Iterator[Rig]:
    """A new exchange on a chain where nothing has happened yet."""
    site.again()
    made = site.rig(tmp_path / "books")
    yield made
    made.close()
