"""Classes and regions that an operator adds: rows `[[class]]` and `[[region]]` in `catalogue.toml` of the data directory.

A node looks at the file while it runs, so a new class is listed without a restart. What is there may not be changed or taken
away, for its numbers are in the log.
"""

import logging
from pathlib import Path

from engine.catalogue import Catalogue, CatalogueError

FILE_NAME = "catalogue.toml"
log = logging.getLogger(__name__)


def load_catalogue(data_dir: Path) -> Catalogue:
    """The catalogue of an exchange. Raises CatalogueError for a file of additions that is wrong."""
    catalogue = Catalogue.load()
    if (data_dir / FILE_NAME).exists():
        catalogue.add(data_dir / FILE_NAME)
    return catalogue


class Additions:
    """Watches the file. `look` often: it costs a `stat`."""

    def __init__(self, catalogue: Catalogue, data_dir: Path) -> None:
        self._catalogue = catalogue
        self._path = data_dir / FILE_NAME
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def look(self) -> bool:
        """Take in what is new in the file; True when there was something. A wrong file is logged, and changes nothing."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        if stamp is None:
            return False
        try:
            added = self._catalogue.add(self._path)
        except (CatalogueError, OSError, UnicodeDecodeError) as error:
            log.error("the additions to the catalogue are not taken: %s", error)
            return False
        if added:
            log.info("added to the catalogue: %s", ", ".join(added))
        return bool(added)
