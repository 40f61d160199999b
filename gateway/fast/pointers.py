"""The tables as compiled code sees them; see engine/pointers.py."""

from typing import Any

from engine.kernel import JIT
from engine.pointers import StateType, at_address
from gateway.fast.tables import SHAPES

TABLES = StateType("Tables", SHAPES, set())
if JIT:
    tables_at = at_address(TABLES)
else:

    def tables_at(tables: Any) -> Any:
        """Without compilation the tables are handed over themselves."""
        return tables
