"""The page's modules against the exchange's own code: the same sums, checksums and verdicts on many inputs."""

import json
from random import Random
from typing import Any

import pytest

from gateway.decimals import price_text
from settlement.liabilities import Node, SumTree, is_counted, leaf
from settlement.proofs import Tree, batch_hash, entry, is_included
from tests.gateway.test_depth import VECTORS

CHANCE = Random(11)


@pytest.fixture
def run(visit: Any) -> Any:
    """`run("book.js", "m => m.crc32('x')", argument)`: a function of a module, in the browser."""
    page = visit()

    def run(module: str, function: str, argument: Any = None) -> Any:
        call = f"async argument => ({function})(await import('/{module}'), argument)"
        return page.evaluate(call, argument)

    return run


def test_checksums_are_those_of_the_vectors(run: Any) -> None:
    texts = [text for _, _, text, _ in VECTORS]
    assert run("book.js", "(m, texts) => texts.map(m.crc32)", texts) == [crc for *_, crc in VECTORS]


def test_money_goes_in_and_out_unchanged(run: Any) -> None:
    amounts = [0, 1, -1, 10**18, -(10**18)] + [
        CHANCE.randint(-(10 ** CHANCE.randint(1, 18)), 10**18) for _ in range(300)
    ]
    texts = [price_text(amount) for amount in amounts]
    function = "(m, texts) => texts.map(text => [String(m.micros(text)), m.text(m.micros(text))])"
    assert run("decimal.js", function, texts) == [
        [str(amount), text] for amount, text in zip(amounts, texts, strict=True)
    ]
    assert (
        run("decimal.js", "(m, texts) => texts.map(m.micros)", ["", "1.", "1e3", "0.1234567", "-", " x"]) == [None] * 6
    )


def test_prices_have_the_digits_of_their_tick(run: Any) -> None:
    shown = run(
        "decimal.js",
        "m => [m.price('2.4', 3), m.price('2', 4), m.price(null, 3), m.price('0.4305', 4), m.price('2.4505', 3)]",
    )
    assert shown == ["2.400", "2.0000", "·", "0.4305", "2.4505"]
    counts = run("decimal.js", "m => [950, 9999, 12345, 3_100_000, 2_000_000_000].map(m.short)")
    assert counts == ["950", "9,999", "12.3k", "3.1M", "2.0G"]
    moves = run(
        "decimal.js",
        "m => [['2', '2.1'], ['2', '1.5'], ['2', '2'], ['0', '1'], [null, '1']].map(([a, b]) => m.change(a, b).text)",
    )
    assert moves == ["▲ 5.0%", "▼ 25.0%", "0.0%", "", ""]


def random_proof() -> tuple[dict[str, Any], bool]:
    """A proof of a random tree, sometimes spoilt in one place, and what the exchange's own code says of it."""
    count, cycle = CHANCE.randint(1, 20), CHANCE.randint(1, 9)
    sums = [(CHANCE.randint(-(10**17), 10**17), CHANCE.randint(0, 10**17)) for _ in range(count)]
    tree = Tree([entry(cycle, account, *sums[account]) for account in range(count)])
    owed = {account: CHANCE.randint(0, 10**16) for account in range(count)}
    total, at = SumTree(cycle, owed), CHANCE.randrange(count)
    proof: dict[str, Any] = {
        "cycle": cycle, "account": at, "net_micros": sums[at][0], "external_micros": sums[at][1], "root": tree.root.hex(),
        "index": at, "leaves": count, "partners": [node.hex() for node in tree.proof(at)],
        "liability": {
            "cycle": cycle, "account": at, "owed_micros": owed[at], "total_micros": total.total_micros,
            "assets_micros": total.total_micros, "root": total.root.hex(), "index": at, "leaves": count,
            "partners": [(node.amount_micros, node.digest.hex()) for node in total.proof(at)],
        },
    }  # fmt: skip
    spoil(proof if CHANCE.random() < 0.5 else proof["liability"])
    return proof, holds(proof)


def spoil(part: dict[str, Any]) -> None:
    name = CHANCE.choice(
        ["", "", "cycle", "account", "net_micros", "owed_micros", "total_micros", "index", "leaves", "partners", "root"]
    )
    if name == "partners":
        part["partners"] = part["partners"][1:] if CHANCE.random() < 0.5 else [*part["partners"], *part["partners"][:1]]
    elif name == "root":
        part["root"] = "0" * 63 + "1"
    elif name in part:
        part[name] += CHANCE.choice([-1, 1])


def holds(proof: dict[str, Any]) -> bool:
    data = entry(proof["cycle"], proof["account"], proof["net_micros"], proof["external_micros"])
    partners = [bytes.fromhex(text) for text in proof["partners"]]
    owed = proof["liability"]
    if not is_included(data, proof["index"], proof["leaves"], partners, bytes.fromhex(proof["root"])):
        return False
    if not owed["owed_micros"] >= 0 or not owed["assets_micros"] >= owed["total_micros"]:
        return False
    nodes = [Node(bytes.fromhex(digest), amount) for amount, digest in owed["partners"]]
    own = leaf(owed["cycle"], owed["account"], owed["owed_micros"])
    return is_counted(own, (owed["index"], owed["leaves"]), nodes, owed["total_micros"], bytes.fromhex(owed["root"]))


def test_the_browser_and_the_exchange_agree_on_every_proof(run: Any) -> None:
    proofs = [random_proof() for _ in range(150)]
    assert {verdict for _, verdict in proofs} == {True, False}
    function = "(m, texts) => Promise.all(texts.map(text => m.checkProof(text, new Map()).then(found => found.ok, () => false)))"
    found = run("proof.js", function, [json.dumps(proof) for proof, _ in proofs])
    assert found == [verdict for _, verdict in proofs]


def test_a_batch_is_whole_only_when_its_id_is_that_of_its_content(run: Any) -> None:
    root, previous = bytes(range(32)), bytes(32)
    number = batch_hash(7, (11, 20), 5_000_001, root, previous).hex()
    batch = {
        "cycle": 7,
        "from_seq": 11,
        "to_seq": 20,
        "gross": "5.000001",
        "root": root.hex(),
        "prev_id": previous.hex(),
        "id": number,
    }
    function = "(m, batches) => Promise.all(batches.map(m.batchIsWhole))"
    others = [
        {**batch, name: value}
        for name, value in (("gross", "5"), ("to_seq", 21), ("root", previous.hex()), ("id", "00" * 32))
    ]
    assert run("proof.js", function, [batch, *others]) == [True, False, False, False, False]
