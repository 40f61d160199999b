"""Imported by the process from which servers are forked: everything that a server imports and compiles.

And the campaign itself: `multiprocessing` has each fork import what was started as the program.
"""

import threading

import uvloop  # noqa: F401

import tests.wellhead.crash_campaign  # noqa: F401
import wellhead.cli
import wellhead.exchange
import wellhead.logs
import wellhead.node
import wellhead.settings  # noqa: F401
from wellhead.compiled import warm_up

warm_up()
assert threading.active_count() == 1, "a process with threads must not be forked"
