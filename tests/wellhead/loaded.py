"""Imported by the process from which servers are forked: everything that a server imports and compiles.

And what the campaign imports: `multiprocessing` has each fork run once more what was started as the program.
"""

import threading

import uvloop  # noqa: F401

import tests.wellhead.crash_disk
import tests.wellhead.crash_load
import tests.wellhead.test_kill  # noqa: F401
import wellhead.cli
import wellhead.exchange
import wellhead.logs
import wellhead.node
import wellhead.settings  # noqa: F401
from wellhead.compiled import warm_up

warm_up()
assert threading.active_count() == 1, "a process with threads must not be forked"
