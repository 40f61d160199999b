"""The meter agent: traces, chains over restarts, the command line, and NVML as far as a machine without a GPU can show."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from engine.catalogue import NS
from settlement.meter import Duty, Meter, Sample, read_report
from settlement.performance import PPM
from tests.settlement.flow import CATALOGUE
from wellhead import meter
from wellhead.cli import main
from wellhead.meter import TRACE_COLUMNS, Agent, AgentError, Gpus, Trace, make_key, read_key

CONTRACT = CATALOGUE.contract("L4-USE-H26112214")
END_NS = (CONTRACT.start_s + 3600) * NS
ENERGY_MJ = 110 * 60 * 700


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = CONTRACT.start_s * NS

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * NS)


def write_trace(path: Path, lots: int = 2, skip: tuple[int, int] = (-1, -1)) -> Path:
    rows = [",".join(TRACE_COLUMNS)]
    rows += [f"{n},{m},1,{PPM},{ENERGY_MJ},{PPM}" for m in range(60) for n in range(lots) if (n, m) != skip]
    path.write_text("\n".join(rows) + "\n")
    return path


def agent(tmp_path: Path, trace: Path, record: Path | None = None) -> Agent:
    if not (tmp_path / "key").exists():
        make_key(tmp_path / "key")
    key = read_key(tmp_path / "key")
    return Agent(key, 7, CONTRACT, 2, Trace(trace), tmp_path / "state", tmp_path / "inbox", record)


def credited(tmp_path: Path) -> int:
    public = read_key(tmp_path / "key").public_key().public_bytes_raw()
    checked = Meter([public], Duty(7, CONTRACT.symbol, 2, 60, CONTRACT.start_s, 110))
    for path in sorted((tmp_path / "inbox").glob("*.report")):
        data = path.read_bytes()
        checked.take(data, checked.check(data, END_NS))
    return checked.credited_ppm(0, 2)


def test_a_recorded_hour_is_reported_minute_by_minute(tmp_path: Path) -> None:
    clock = Clock()
    seen = list(agent(tmp_path, write_trace(tmp_path / "t.csv", skip=(1, 7))).run(clock.now_ns, clock.sleep))
    assert seen == [(minute, 1 if minute == 7 else 2) for minute in range(60)]
    assert clock.now == END_NS
    assert credited(tmp_path) == 119 * PPM


def test_an_agent_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    clock, trace = Clock(), write_trace(tmp_path / "t.csv")
    first = agent(tmp_path, trace).run(clock.now_ns, clock.sleep)
    assert [next(first) for _ in range(20)][-1] == (19, 2)
    last = tmp_path / "inbox" / f"7-{CONTRACT.symbol}-0019.report"
    last.unlink()  # killed between keeping it and sending it
    assert next(agent(tmp_path, trace).run(clock.now_ns, clock.sleep)) == (20, 2)
    assert last.exists()
    rest = [minute for minute, _ in agent(tmp_path, trace).run(clock.now_ns, clock.sleep)]
    assert rest == list(range(21, 60))
    assert credited(tmp_path) == 120 * PPM


def test_what_was_recorded_is_a_trace(tmp_path: Path) -> None:
    clock, trace = Clock(), write_trace(tmp_path / "t.csv")
    list(agent(tmp_path, trace, tmp_path / "again.csv").run(clock.now_ns, clock.sleep))
    assert (tmp_path / "again.csv").read_bytes() == trace.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "first line must be lot,minute"),
        (",".join(TRACE_COLUMNS) + "\n1,2,x,4,5,6\n", "line 2"),
        (None, "No such"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(AgentError, match=message):
        Trace(tmp_path / "bad.csv")


class Nvml:
    """As much of the binding as the agent uses, with two GPUs that draw 70 W."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.reads = 0
        self.broken = False

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, at: int) -> int:
        return at

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        if self.broken:
            raise self.NVMLError
        self.reads += 1
        return 10**6 * handle + (4_200_000 if self.reads > 2 else 0)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=90 + handle)


def test_gpus_are_read_and_challenged(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml, seeds = Nvml(), []

    def timed(gpu: int, seed: int) -> int:
        seeds.append(seed)
        return 2 * meter.GEMM_SIZE**3 * meter.GEMM_ROUNDS // 48_000  # 48 TFLOPS

    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(meter, "time_gemm", timed)
    gpus = Gpus(CONTRACT, 2, 50_000)
    gpus.begin()
    assert gpus.end(1, 5) == Sample(1, 5, True, 960_000, 4_200_000, 910_000)
    gpus.end(1, 6)
    assert len(set(seeds)) == 2
    nvml.broken = True
    assert gpus.end(0, 7) == Sample(0, 7, False, 0, 0, 0)
    with pytest.raises(AgentError, match="3 lots need 3 GPUs"):
        Gpus(CONTRACT, 3, 50_000)


def test_the_command_line_says_what_it_measures_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    run = CliRunner().invoke
    key = str(tmp_path / "m.key")
    public = run(main, ["meter", "key", key]).output.strip()
    assert run(main, ["meter", "key", key]).exit_code == 1
    data = ["--data", str(tmp_path / "data")]
    assert run(main, ["meter", "register", *data, "7", public]).exit_code == 0
    assert run(main, ["meter", "register", *data, "7", "ab"]).exit_code == 2
    start = ["meter", "run", *data, "--key", key, "--account", "7", "--lots", "2", "--symbol"]
    nothing = run(main, [*start, CONTRACT.symbol])
    assert nothing.exit_code == 2
    assert "no NVML here" in nothing.output
    assert run(main, [*start, "NONE"]).exit_code == 2
    trace = write_trace(tmp_path / "t.csv")
    past = "L4-USE-H25010100"
    played = run(main, [*start, past, "--trace", str(trace), "--state", str(tmp_path / "state")])
    assert played.exit_code == 0, played.output
    assert "not a GPU" in played.output
    (*_, last) = sorted((tmp_path / "data" / "settlement" / "inbox").glob("*.report"))
    assert read_report(last.read_bytes())["minute"].tolist() == [59, 59]
