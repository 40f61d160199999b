"""Opening a data directory."""

from pathlib import Path

import numpy as np
import pytest

from engine.catalogue import Catalogue
from engine.log import LogLocked
from engine.types import COMMAND, Kind
from wellhead.config import Config
from wellhead.exchange import Exchange


def test_who_comes_second_takes_nothing_from_the_first(tmp_path: Path) -> None:
    """Not the books either, which belong to whoever claimed them last."""
    config = Config(tmp_path, durable=False)
    first = Exchange.open(config, Catalogue.load())
    first.recover()
    with pytest.raises(LogLocked):
        Exchange.open(config, Catalogue.load())
    command = np.zeros(1, COMMAND)
    command["kind"], command["ts_ns"] = Kind.CLOSE_CYCLE, 1
    first.log.append(command)
    first.settlement.on_batch(command, first.engine.apply(command))
    first.close()
    Exchange.open(config, Catalogue.load()).close()
