"""A process to be killed: settles a recorded log in batches and says what is durable.

apply_log.py LOG BOOKS SEED. Imports no engine: it must start quickly.
"""

import random
import sys
from pathlib import Path

import numpy as np

from engine.catalogue import Catalogue
from settlement.service import Settlement

commands, events = np.load(f"{sys.argv[1]}.commands.npy"), np.load(f"{sys.argv[1]}.events.npy")
pick = random.Random(int(sys.argv[3]))
settlement = Settlement(Path(sys.argv[2]), Catalogue.load())
print("start", settlement.applied_seq, flush=True)
first = max(1, settlement.applied_seq - 20)  # some of it again
while first <= len(commands):
    last = min(len(commands), first + pick.randint(0, 12))
    mine = (events["command_seq"] >= first) & (events["command_seq"] <= last)
    settlement.on_batch(commands[first - 1 : last], events[mine])
    print("done", settlement.applied_seq, flush=True)
    first = last + 1
settlement.close()
