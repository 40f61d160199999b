"""The compiled code of a node, all of it: loaded before it is needed, and compiled once for each version."""

from engine import engine
from gateway import history, memory


def warm_up() -> bool:
    """Load it; True when some of it had to be compiled, which takes about a minute."""
    compiled = [engine.warm_up(), memory.warm_up(), history.warm_up()]
    return any(compiled)
