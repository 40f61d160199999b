"""Files of scenarios, and what comes of running them."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from engine import invariants
from tests.both import make_engine
from tests.engine.conformance.expect import difference, events_and_book_agree
from tests.engine.conformance.features import NotSupportedError
from tests.engine.conformance.player import Player

FORMAT = "lob-conformance-1"
HERE = Path(__file__).parent
Make = Callable[..., Any]


class Verdict(Enum):
    PASS = "pass"
    DIFFERS = "differs"
    NOT_SUPPORTED = "not supported"


@dataclass(frozen=True)
class Result:
    case_id: str
    verdict: Verdict
    why: str = ""


def suite_files() -> list[Path]:
    """The suites that lie here."""
    return sorted([*HERE.glob("*.json"), *HERE.glob("*.json.gz")])


def load(path: str | Path) -> dict[str, Any]:
    """A suite. ValueError when it is of another form."""
    raw = Path(path).read_bytes()
    suite = json.loads(gzip.decompress(raw) if str(path).endswith(".gz") else raw)
    if not isinstance(suite, dict) or suite.get("format") != FORMAT:
        raise ValueError(f"{path} is not in the form {FORMAT}")
    return suite


def run_file(path: str | Path, make: Make = make_engine) -> list[Result]:
    """Every case of a file, each on a new exchange."""
    return [run_case(case, make) for case in load(path)["cases"]]


def run_case(case: dict[str, Any], make: Make = make_engine) -> Result:
    """Play a case to its first difference. In the end the exchange must also agree with itself."""
    exchange = make(max_accounts=100_000, max_open_orders_per_account=1_000_000)
    try:
        why = _play(Player(exchange, case), case["steps"])
    except NotSupportedError as missing:
        return Result(case["id"], Verdict.NOT_SUPPORTED, str(missing))
    return Result(case["id"], Verdict.DIFFERS if why else Verdict.PASS, why or "")


def _play(player: Player, steps: list[dict[str, Any]]) -> str | None:
    for place, step in enumerate(steps, start=1):
        if step["op"] != "expect":
            player.do(step)
        elif why := difference(player, step):
            return f"step {place}: {why}"
    exchange = player.exchange
    try:
        exchange.check() if hasattr(exchange, "check") else invariants.check(exchange.memory)
    except AssertionError as broken:
        return f"an invariant is broken: {broken}"
    return events_and_book_agree(player)
