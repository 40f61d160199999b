"""Chains of minute records: what is taken, what is refused and with which code, and what is believed."""

from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from engine.catalogue import NS
from settlement.meter import (
    HEAD_BYTES,
    MAGIC,
    MINUTE,
    Duty,
    Fault,
    Meter,
    MeterError,
    Refusal,
    Sample,
    Writer,
    check_signature,
    credits_ppm,
    read_report,
)
from settlement.performance import PPM, credit_ppm

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
START_S = 1_000_000
WATTS = 10_000
DUTY = Duty(7, "H100S-USE-H26112214", 2, 60, START_S, WATTS)
FULL_MJ = WATTS * 60 * 1000
END_NS = (START_S + 3600) * NS


def sample(lot: int, minute: int, **fields: int) -> Sample:
    """A minute at full load and performance."""
    values = {"up": 1, "performance_ppm": PPM, "energy_mj": FULL_MJ * 8 // 10, "utilisation_ppm": PPM} | fields
    return Sample(lot, minute, **values)  # type: ignore[arg-type]


def writer(account: int = 7, symbol: str = DUTY.symbol, key: Ed25519PrivateKey = KEY) -> Writer:
    return Writer(key, account, symbol)


def meter() -> Meter:
    return Meter([PUBLIC], DUTY)


def take(made: Meter, data: bytes, now_ns: int = END_NS) -> None:
    made.take(data, made.check(data, now_ns))


def code_of(made: Meter, data: bytes, now_ns: int = END_NS) -> Refusal:
    before = made.credit_ppm.copy(), made.reported.copy()
    with pytest.raises(MeterError) as caught:
        made.check(data, now_ns)
    assert (made.credit_ppm == before[0]).all()
    assert (made.reported == before[1]).all()
    return caught.value.code


def resigned(data: bytes, change: Callable[[np.ndarray], object]) -> bytes:  # type: ignore[type-arg]
    """A report with its records changed, by somebody who has the key."""
    records = read_report(data).copy()
    change(records)
    return MAGIC + KEY.sign(MAGIC + records.tobytes()) + records.tobytes()


def test_an_hour_of_two_lots_in_reports_of_any_size() -> None:
    made, agent = meter(), writer()
    assert not made.is_complete
    take(made, agent.report([sample(lot, minute) for minute in range(20) for lot in (0, 1)]))
    take(made, agent.report([sample(1, minute) for minute in range(20, 60)]))
    assert not made.is_complete
    take(made, agent.report([sample(0, minute, performance_ppm=900_000) for minute in range(20, 60)]))
    assert made.is_complete
    assert made.credited_ppm(0, 2) == 80 * PPM + 40 * 900_000
    assert made.credited_ppm(1, 1) == 60 * PPM


def test_gaps_count_as_down_and_cannot_be_filled_later() -> None:
    made, agent = meter(), writer()
    take(made, agent.report([sample(0, 3), sample(0, 10), sample(0, 59)]))
    assert made.credited_ppm(0, 1) == 3 * PPM
    assert code_of(made, agent.report([sample(0, 5)])) == Refusal.BROKEN_CHAIN


def test_a_minute_down_or_too_slow_is_credited_nothing() -> None:
    made = meter()
    take(made, writer().report([sample(0, 0, up=0, energy_mj=0), sample(0, 1, performance_ppm=799_999), sample(0, 2)]))
    assert made.credit_ppm[0, :3].tolist() == [0, 0, PPM]


def test_replays_are_refused() -> None:
    made, agent = meter(), writer()
    first, second = agent.report([sample(0, 0), sample(0, 1)]), agent.report([sample(0, 2)])
    take(made, first)
    assert code_of(made, first) == Refusal.REPLAYED
    take(made, second)
    assert code_of(made, second) == Refusal.REPLAYED
    assert code_of(made, first) == Refusal.REPLAYED


def test_reordering_within_and_between_reports_is_refused() -> None:
    made, agent = meter(), writer()
    first, second = agent.report([sample(0, 0), sample(0, 1)]), agent.report([sample(0, 2)])
    assert code_of(made, second) == Refusal.BROKEN_CHAIN
    swapped = resigned(first, lambda rows: rows.__setitem__(slice(None), rows[::-1].copy()))
    assert code_of(made, swapped) == Refusal.BROKEN_CHAIN
    assert code_of(made, resigned(first, lambda rows: rows["minute"].__setitem__(0, 5))) == Refusal.BROKEN_CHAIN
    assert code_of(made, writer().report([sample(0, 1), sample(0, 0)])) == Refusal.BROKEN_CHAIN
    assert code_of(made, writer().report([sample(0, 1), sample(0, 1)])) == Refusal.BROKEN_CHAIN


def test_a_record_changed_afterwards_breaks_the_chain_behind_it() -> None:
    made = meter()
    data = writer().report([sample(0, 0, performance_ppm=0), sample(0, 1)])
    assert (
        code_of(made, resigned(data, lambda rows: rows["performance_ppm"].__setitem__(0, PPM))) == Refusal.BROKEN_CHAIN
    )


def test_foreign_chains_are_refused() -> None:
    made = meter()
    assert code_of(made, writer(account=8).report([sample(0, 0)])) == Refusal.BROKEN_CHAIN
    assert code_of(made, writer(symbol="H100S-USE-H26112215").report([sample(0, 0)])) == Refusal.BROKEN_CHAIN
    other_lot = writer().report([sample(1, 0)])
    assert code_of(made, resigned(other_lot, lambda rows: rows["lot"].__setitem__(0, 0))) == Refusal.BROKEN_CHAIN
    relabelled = writer(symbol="H100S-USE-H26112215").report([sample(0, 0)])
    own = read_report(writer().report([sample(0, 0)]))["symbol"]
    assert (
        code_of(made, resigned(relabelled, lambda rows: rows["symbol"].__setitem__(0, own[0]))) == Refusal.BROKEN_CHAIN
    )


def test_only_the_providers_key_signs_and_every_byte_is_signed() -> None:
    made, data = meter(), writer().report([sample(0, 0)])
    stranger = writer(key=Ed25519PrivateKey.generate()).report([sample(0, 0)])
    assert code_of(made, stranger) == Refusal.BAD_SIGNATURE
    for at in (len(MAGIC), HEAD_BYTES, HEAD_BYTES + 50, len(data) - 1):
        broken = bytearray(data)
        broken[at] ^= 1
        assert code_of(made, bytes(broken)) == Refusal.BAD_SIGNATURE
    second = Ed25519PrivateKey.generate()
    both = Meter([PUBLIC, second.public_key().public_bytes_raw()], DUTY)
    take(both, writer(key=second).report([sample(0, 0)]))
    take(both, writer().report([sample(1, 0)]))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"lot": 2}, Refusal.WRONG_LOT),
        ({"lot": -1}, Refusal.WRONG_LOT),
        ({"minute": 60}, Refusal.WRONG_MINUTE),
        ({"minute": -1}, Refusal.WRONG_MINUTE),
        ({"up": 2}, Refusal.BAD_VALUE),
        ({"performance_ppm": 2_000_001}, Refusal.BAD_VALUE),
        ({"performance_ppm": -1}, Refusal.BAD_VALUE),
        ({"utilisation_ppm": 1_000_001}, Refusal.BAD_VALUE),
        ({"energy_mj": -1}, Refusal.BAD_VALUE),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, int], code: Refusal) -> None:
    data = writer().report([sample(**{"lot": 0, "minute": 0} | fields)])
    assert code_of(meter(), data) == code


def test_a_minute_is_reported_when_it_is_over() -> None:
    made, data = meter(), writer().report([sample(0, 9)])
    assert code_of(made, data, (START_S + 590) * NS) == Refusal.NOT_YET
    take(made, data, (START_S + 595) * NS)


def test_what_is_no_report() -> None:
    good = writer().report([sample(0, 0)])
    mixed = read_report(writer().report([sample(0, 0), sample(0, 1)])).copy()
    mixed["account"][1] = 8
    bad = [b"", good[:-1], good[:HEAD_BYTES], b"x" + good[1:], MAGIC + bytes(64) + mixed.tobytes()]
    for data in (*bad, MAGIC + bytes(64) + bytes(MINUTE.itemsize * 20_001)):
        with pytest.raises(MeterError) as caught:
            read_report(data)
        assert caught.value.code == Refusal.BAD_REPORT
    check_signature(good, [PUBLIC])


@pytest.mark.parametrize(
    ("energy_ppm", "utilisation_ppm", "fault"),
    [
        (1_100_001, PPM, Fault.TOO_MUCH_ENERGY),
        (1_100_000, PPM, Fault.NONE),
        (300_000, PPM, Fault.NONE),
        (299_999, PPM, Fault.TOO_LITTLE_ENERGY),
        (50_000, 0, Fault.NONE),
        (49_999, 0, Fault.TOO_LITTLE_ENERGY),
    ],
)
def test_energy_that_cannot_be_is_kept_and_credited_nothing(
    energy_ppm: int, utilisation_ppm: int, fault: Fault
) -> None:
    made = meter()
    energy = FULL_MJ * energy_ppm // PPM
    take(made, writer().report([sample(0, 0, energy_mj=energy, utilisation_ppm=utilisation_ppm)]))
    assert made.faults[0, 0] == fault
    assert made.credited_ppm(0, 1) == (0 if fault else PPM)
    assert made.reported[0, 0]


def test_an_agent_that_starts_again_goes_on_with_its_chains() -> None:
    made, first, second = meter(), writer(), writer()
    reports = [first.report([sample(0, 0), sample(1, 0)]), first.report([sample(0, 1)])]
    second.resume(reports)
    for data in (*reports, second.report([sample(0, 2), sample(1, 2)])):
        take(made, data)
    assert made.credited_ppm(0, 2) == 5 * PPM


@given(st.lists(st.integers(0, 2_000_000), min_size=1))
def test_the_column_and_the_single_credit_agree(shares: list[int]) -> None:
    assert credits_ppm(np.array(shares)).tolist() == [credit_ppm(share) for share in shares]
