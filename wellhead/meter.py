"""The meter agent: measures the lots of a provider minute by minute, and reports them signed.

On a machine with NVIDIA GPUs it reads NVML (`nvidia-ml-py`: energy and utilisation) and times a short matrix product,
seeded by contract, lot and minute (`torch`). Elsewhere it says so, and plays a recorded trace: a CSV with the columns
of TRACE_COLUMNS, which a run on real hardware writes with `--record`.

NVML counts what the GPUs draw, not the node around them: the exchange's lower bounds on energy leave room for that.

Each report is kept in the agent's own directory before it is sent, so an agent that was killed goes on with its chains.
"""

import csv
import importlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.catalogue import NS, Contract
from settlement.inbox import SUFFIX
from settlement.meter import MINUTE_S, Sample, Writer
from settlement.performance import PPM

TRACE_COLUMNS = ("lot", "minute", "up", "performance_ppm", "energy_mj", "utilisation_ppm")
MINUTES = 60
GEMM_SIZE = 8_192
GEMM_ROUNDS = 16


class AgentError(Exception):
    """The agent cannot measure, or cannot read what it was given; the message says what."""


class Sampler(Protocol):
    """Where samples come from."""

    def begin(self) -> None:
        """A minute begins."""

    def end(self, lot: int, minute: int) -> Sample | None:
        """The minute is over: what was seen of a lot, None when nothing was."""


class Trace:
    """A recorded hour."""

    def __init__(self, path: Path) -> None:
        """Raises AgentError, naming the line, for a file that is no trace."""
        self._samples: dict[tuple[int, int], Sample] = {}
        try:
            with open(path, newline="", encoding="ascii") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != TRACE_COLUMNS:
                    raise AgentError(f"{path}: the first line must be {','.join(TRACE_COLUMNS)}")
                for line, row in enumerate(reader, 2):
                    self._add(path, line, row)
        except (OSError, UnicodeDecodeError) as error:
            raise AgentError(f"{path}: {error}") from error

    def _add(self, path: Path, line: int, row: dict[str, str]) -> None:
        try:
            lot, minute, up, *rest = (int(row[name]) for name in TRACE_COLUMNS)
        except (TypeError, ValueError) as error:
            raise AgentError(f"{path} line {line}: {error}") from error
        sample = Sample(lot, minute, bool(up), *rest)
        self._samples[sample.lot, sample.minute] = sample

    def begin(self) -> None:
        """Nothing to do: it has happened."""

    def end(self, lot: int, minute: int) -> Sample | None:
        return self._samples.get((lot, minute))


class Gpus:
    """The GPUs of this machine, `gpus_per_lot` to a lot in NVML's order."""

    def __init__(self, contract: Contract, lots: int, reference_gflops: int) -> None:
        """`reference_gflops` is the class's reference for the challenge, one GPU. Raises AgentError."""
        self._nvml = load_nvml()
        self._contract = contract
        self._reference_gflops = reference_gflops
        self._per_lot = contract.gpu_class.gpus_per_lot
        have = self._nvml.nvmlDeviceGetCount()
        if have < lots * self._per_lot:
            raise AgentError(f"{lots} lots need {lots * self._per_lot} GPUs, this machine has {have}")
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(at) for at in range(lots * self._per_lot)]
        self._energy_mj: list[int] = []

    def begin(self) -> None:
        self._energy_mj = [self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in self._handles]

    def end(self, lot: int, minute: int) -> Sample | None:
        mine = range(lot * self._per_lot, (lot + 1) * self._per_lot)
        try:
            energy = sum(
                self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handles[at]) - self._energy_mj[at] for at in mine
            )
            rates = [self._nvml.nvmlDeviceGetUtilizationRates(self._handles[at]).gpu for at in mine]
            # The weakest GPU is what a job on all of them feels.
            performance = min(self._challenge(at, minute) for at in mine)
        except self._nvml.NVMLError:
            return Sample(lot, minute, False, 0, 0, 0)
        return Sample(lot, minute, True, performance, energy, sum(rates) * PPM // (100 * len(rates)))

    def _challenge(self, gpu: int, minute: int) -> int:
        seed = sha256(f"{self._contract.symbol} {gpu} {minute}".encode()).digest()
        elapsed_ns = time_gemm(gpu, int.from_bytes(seed[:6], "big"))
        gflops = 2 * GEMM_SIZE**3 * GEMM_ROUNDS // max(1, elapsed_ns)  # operations per nanosecond
        return min(2 * PPM, gflops * PPM // self._reference_gflops)


def load_nvml() -> Any:
    """The initialised NVML binding. Raises AgentError where there is no NVIDIA GPU or no binding."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise AgentError("no NVML here: nvidia-ml-py is not installed (wellhead[meter])") from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise AgentError(f"no NVIDIA GPU here: {error}") from error
    return nvml


def time_gemm(gpu: int, seed: int) -> int:
    """Nanoseconds of GEMM_ROUNDS products of seeded bf16 matrices on one GPU. Raises AgentError without torch."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise AgentError("the challenge needs torch") from error
    device = torch.device("cuda", gpu)
    source = torch.Generator(device).manual_seed(seed)
    shape = (GEMM_SIZE, GEMM_SIZE)
    one, other = (torch.randn(shape, generator=source, device=device, dtype=torch.bfloat16) for _ in range(2))
    torch.matmul(one, other)
    torch.cuda.synchronize(device)
    started = time.perf_counter_ns()
    for _ in range(GEMM_ROUNDS):
        torch.matmul(one, other)
    torch.cuda.synchronize(device)
    return time.perf_counter_ns() - started


@dataclass(frozen=True)
class Agent:
    """Reports the lots of one provider in one contract."""

    key: Ed25519PrivateKey
    account: int
    contract: Contract
    lots: int
    sampler: Sampler
    state: Path  # its own copies of the reports
    inbox: Path  # the exchange's
    record: Path | None = None  # a trace to write

    def run(
        self, now_ns: Callable[[], int] = time.time_ns, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[tuple[int, int]]:
        """Report each minute when it is over, from the first not reported yet; yields (minute, lots seen)."""
        writer = Writer(self.key, self.account, self.contract.symbol)
        self.state.mkdir(parents=True, exist_ok=True)
        made = sorted(self.state.glob(f"*{SUFFIX}"))
        writer.resume([path.read_bytes() for path in made])
        if made:  # whether the last one was sent is not known; twice does no harm
            self._send(made[-1])
        first = max((int(path.stem.rsplit("-", 1)[1]) for path in made), default=-1) + 1
        for minute in range(first, MINUTES):
            self.sampler.begin()
            self._wait_until((self.contract.start_s + (minute + 1) * MINUTE_S) * NS, now_ns, sleep)
            samples = [sample for lot in range(self.lots) if (sample := self.sampler.end(lot, minute))]
            if samples:
                self._report(writer, minute, samples)
            yield minute, len(samples)

    def _report(self, writer: Writer, minute: int, samples: list[Sample]) -> None:
        path = self.state / f"{self.account}-{self.contract.symbol}-{minute:04}{SUFFIX}"
        _write_whole(path, writer.report(samples))
        self._send(path)
        if self.record:
            is_new = not self.record.exists()
            with open(self.record, "a", newline="", encoding="ascii") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerows([TRACE_COLUMNS] * is_new + [[int(value) for value in sample] for sample in samples])

    def _send(self, path: Path) -> None:
        self.inbox.mkdir(parents=True, exist_ok=True)
        _write_whole(self.inbox / path.name, path.read_bytes())

    def _wait_until(self, at_ns: int, now_ns: Callable[[], int], sleep: Callable[[float], None]) -> None:
        while (left_ns := at_ns - now_ns()) > 0:
            sleep(left_ns / NS)


def _write_whole(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".draft")
    with open(draft, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def make_key(path: Path) -> bytes:
    """A new meter key in a file that only its owner reads; returns the public half. Raises FileExistsError."""
    key = Ed25519PrivateKey.generate()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(key.private_bytes_raw().hex() + "\n")
    return key.public_key().public_bytes_raw()


def read_key(path: Path) -> Ed25519PrivateKey:
    """Raises AgentError for a file that holds no key."""
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise AgentError(f"{path} holds no meter key: {error}") from error
