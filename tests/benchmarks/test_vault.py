"""The vault's benchmark runs, and what it is quoted for is so."""

import pytest

from benchmarks import vault


def test_a_push_costs_less_than_plain_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "CHUNKS", (60,))
    monkeypatch.setattr(vault, "MEMBERS", 5)
    found = {cost.action: cost for cost in vault.costs()}
    for kind in ("fresh", "repeat"):
        assert found[f"push, {kind}"].gas_per_member < found[f"plain transfer, {kind}"].gas
        assert found[f"push, {kind}"].of_plain_transfer_percent < 100
    assert found["push, repeat"].gas_per_member < found["push, fresh"].gas_per_member
    assert {"claim of 5, fresh", "exit of 5, fresh", "collect_owed, fresh", "withdraw 2 of 3, fresh"} < found.keys()
