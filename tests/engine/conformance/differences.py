"""The cases of the suites here that do not pass, each with the reason, and the page that lists them."""

from collections import Counter
from pathlib import Path

from tests.engine.conformance.features import AON_RESTS, FEATURES, NOT_GATHERED, STP_FLAGS
from tests.engine.conformance.suites import Result, Verdict, load, run_file, suite_files

PAGE = Path(__file__).parents[3] / "docs" / "conformance.md"

MARKET_NEVER_RESTS = (
    "liquibook lets a market order without a time in force wait in the book at no price, ahead of every limit order. "
    "Ours is IOC or FOK and what remains of it is cancelled: a buy without a price cannot be covered by money set aside."
)

DIFFERENCES: dict[str, str] = dict.fromkeys(
    (
        "liquibook-TestMatchMarketOrderBid",
        "liquibook-TestMatchMarketOrderAsk",
        "liquibook-TestMatchMultipleMarketOrderBid",
        "liquibook-TestMatchMultipleMarketOrderAsk",
        "liquibook-TestBboMatchMarketOrderBid",
        "liquibook-TestBboMatchMarketOrderAsk",
        "liquibook-TestBboMatchMultipleMarketOrderBid",
        "liquibook-TestBboMatchMultipleMarketOrderAsk",
    ),
    MARKET_NEVER_RESTS,
)
"""Case to reason: a rule of ours that differs on purpose."""

INTRODUCTION = """\
# Conformance with other engines

The order-book scenarios of other engines, run on the engine and on its slow twin, command by command, with accounts,
holds and fees: trades, depth, queues, the state of orders, refusals. After each case the books, the money and the
events must also agree with each other. Where the scenarios come from, and under which licences, is in
`tests/engine/conformance/README.md`.

    python -m tests.engine.conformance              the suites that are here
    python -m tests.engine.conformance FILE...      other files in the same form, lob-conformance-1

`python -m tests.engine.conformance --write-page` writes this page; `tests/engine/test_conformance.py` fails when it is
out of date, when a case that is not listed fails, and when a listed one passes.
"""

SAID_IN_OURS = """\
## How their words are read

- A modify to a new open quantity is our AMEND to what is filled plus that, with REQUEUE where the source says that
  priority is lost in every case. A modify to nothing is a CANCEL.
- A replace under a new id is a CANCEL and a NEW_ORDER.
- A FOK order that cannot be filled and a post-only order that would trade are refused here and cancelled elsewhere; both
  count as the same.
- A cancelled order's open quantity is 0 or what was cancelled of it, according to the source; both count as the same. It
  must be out of the book.
- A self-trade is prevented order by order, as the taker meets them; where that ends an order before it traded, others
  may call it refused: both count as the same.
- A stop waits for the last trade price. One that is due when it comes is triggered at once. A plain stop trades what it
  can when it is triggered, and the rest is cancelled.
- An iceberg that has traded what it showed goes to the end of its level.
- An all-or-none order that can be filled at once is a FOK. A market order with slippage trades within a collar of that
  width. A book that is filled while matching is off is gathered in PRE_OPEN, and matched in an auction at one price.
- Prices and quantities too large for a book are moved and divided by what they have in common.
"""


WHY_NOT_OFFERED = (
    "An all-or-none order that waits may be passed over by worse prices and leaves a book crossed without a trade, which "
    "a continuous book of ours never is; `min_qty` asks for as much at entry. What shows nothing, trails a price or hangs "
    "on another order is left to clients, who have amends that keep an id and fills that come at once."
)


def page() -> str:
    """docs/conformance.md."""
    rows, listed = [], []
    for path in suite_files():
        suite, results = load(path), run_file(path)
        counts = Counter(result.verdict for result in results)
        cells = [suite["suite"], len(results), *(counts[verdict] for verdict in Verdict)]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
        listed += [result for result in results if result.verdict is not Verdict.PASS]
    table = ["## Results", "", "| suite | cases | pass | differ | not supported |", "|---|---|---|---|---|", *rows]
    lacking = [f"- {feature.otherwise}: {feature.name}" for feature in FEATURES if feature.fields is None]
    also = [
        f"- {AON_RESTS}",
        f"- {NOT_GATHERED}",
        f"- not offered: self-trade prevention but by {', '.join(STP_FLAGS)}",
    ]
    not_asked = ["## What a case may ask that is not supported", "", *lacking, *also, "", WHY_NOT_OFFERED]
    parts = [INTRODUCTION.strip(), "\n".join(table), _reasons(listed), SAID_IN_OURS.strip(), "\n".join(not_asked)]
    return "\n\n".join(parts) + "\n"


def _reasons(listed: list[Result]) -> str:
    """The cases that do not pass, under their reasons."""
    lines = ["## Cases that do not pass, and why"]
    by_reason: dict[str, list[Result]] = {}
    for result in listed:
        by_reason.setdefault(DIFFERENCES.get(result.case_id, "?"), []).append(result)
    for reason, results in by_reason.items():
        lines += ["", reason, "", *(f"- {result.case_id}: {result.why}" for result in results)]
    return "\n".join(lines)
