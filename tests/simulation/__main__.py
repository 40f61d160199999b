"""`python -m tests.simulation --seeds 100`: runs of the whole exchange, each under its own seed.

--seeds N      the seeds from --first on (1); fails with the command that replays a seed
--seed S       one seed; what it printed once it prints again
--actions K    what clients do in one run (300)
--jobs J       processes at a time (1)
--faults       plant the known faults, and say how many seeds it takes to find each

A step is one event of the simulated world's schedule: something a client does or hears, a stage of the node, a job of the
disk, a block, a timer.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial

from tests.simulation.world import World, folder

ACTIONS = 300
NOT_COUNTED = {"seed", "problems", "digest"}


@dataclass
class Outcome:
    """What a run was, and what was wrong."""

    seed: int
    problems: list[str]
    digest: str
    steps: int
    actions: int
    moments: int
    kills: int


def simulate(seed: int, actions: int = ACTIONS) -> Outcome:
    """One seed."""
    with folder() as path:
        world = World(seed, actions, path)
        problems = world.run()
        return Outcome(seed, problems, world.digest(), world.steps, world.actions, world.disk.moments, world.kills)


def outcomes(seeds: range, actions: int, jobs: int) -> Iterator[Outcome]:
    """In order of the seeds."""
    if jobs == 1:
        yield from (simulate(seed, actions) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(partial(simulate, actions=actions), seeds, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def campaign(seeds: range, actions: int, jobs: int) -> int:
    """Many seeds; an exit code."""
    begun, used_s, counts = (
        time.perf_counter(),
        processor_s(),
        [field.name for field in fields(Outcome) if field.name not in NOT_COUNTED],
    )
    done = dict.fromkeys(counts, 0)
    for outcome in outcomes(seeds, actions, jobs):
        done = {name: count + getattr(outcome, name) for name, count in done.items()}
        if outcome.problems:
            print(f"seed {outcome.seed} fails:", *outcome.problems[:5], sep="\n  ")
            print(f"replay it:\n  python -m tests.simulation --seed {outcome.seed} --actions {actions}")
            return 1
    seconds, used_s = time.perf_counter() - begun, processor_s() - used_s
    said = ", ".join(f"{count:,} {name}" for name, count in done.items())
    print(f"{len(seeds)} seeds, {said}: nothing wrong")
    print(
        f"{seconds:.1f} s, {done['steps'] / seconds:,.0f} steps/s; {done['steps'] / used_s:,.0f} a second of one processor"
    )
    return 0


def processor_s() -> float:
    """Used so far, by this process and those of its children that have ended."""
    return sum(os.times()[:4])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--actions", type=int, default=ACTIONS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    if options.faults:
        from tests.simulation import chain_faults
        from tests.simulation.faults import hunt

        chain_faults.plant()
        return hunt(options.seeds, options.actions, options.jobs)
    if options.seed is not None:
        outcome = simulate(options.seed, options.actions)
        print(f"seed {outcome.seed}: {outcome.steps} steps, {outcome.kills} kills, digest {outcome.digest}")
        print(*outcome.problems or ["nothing wrong"], sep="\n")
        return int(bool(outcome.problems))
    return campaign(range(options.first, options.first + options.seeds), options.actions, options.jobs)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings are walked in the order of their hashes: a run must be the same in every process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
