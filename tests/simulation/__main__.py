"""`python -m tests.simulation --seeds 100`: runs of the whole exchange, each under its own seed.

--seeds N      the seeds from --first on (1); fails with the command that replays a seed
--seed S       one seed; what it printed once it prints again
--steps K      what clients do in one run (300)
--faults       plant the known faults, and say how many seeds it takes to find each
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass

from tests.simulation.world import World, folder

STEPS = 300


@dataclass
class Outcome:
    """What a run was, and what was wrong."""

    seed: int
    problems: list[str]
    steps: int
    moments: int
    kills: int
    digest: str


def simulate(seed: int, steps: int = STEPS) -> Outcome:
    """One seed."""
    with folder() as path:
        world = World(seed, steps, path)
        problems = world.run()
        return Outcome(seed, problems, world.taken, world.disk.moments, world.kills, world.digest())


def campaign(seeds: range, steps: int) -> int:
    """Many seeds; an exit code."""
    begun, done = time.perf_counter(), [0, 0, 0]
    for seed in seeds:
        outcome = simulate(seed, steps)
        done = [a + b for a, b in zip(done, (outcome.steps, outcome.moments, outcome.kills), strict=True)]
        if outcome.problems:
            print(f"seed {seed} fails:", *outcome.problems[:5], sep="\n  ")
            print(f"replay it:\n  python -m tests.simulation --seed {seed} --steps {steps}")
            return 1
    seconds = time.perf_counter() - begun
    print(
        f"{len(seeds)} seeds, {done[0]:,} steps of clients, {done[1]:,} moments to die at, {done[2]:,} kills:"
        f" nothing wrong. {seconds:.1f} s, {done[0] / seconds:,.0f} steps/s, {done[1] / seconds:,.0f} moments/s"
    )
    return 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    if options.faults:
        from tests.simulation.faults import hunt

        return hunt(options.seeds, options.steps)
    if options.seed is not None:
        outcome = simulate(options.seed, options.steps)
        print(f"seed {outcome.seed}: {outcome.steps} steps, {outcome.kills} kills, digest {outcome.digest}")
        print(*outcome.problems or ["nothing wrong"], sep="\n")
        return int(bool(outcome.problems))
    return campaign(range(options.first, options.first + options.seeds), options.steps)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings are walked in the order of their hashes: a run must be the same in every process.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
