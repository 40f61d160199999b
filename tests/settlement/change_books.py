"""Changing books behind everybody's back, transfers row by row also where a file has them in pages."""

import json

from settlement.database import Database
from settlement.ledger import PAGE_ROWS


def change_books(database: Database, statement: str) -> None:
    """Run a statement; its table `transfers` has a row for each, whatever the backend."""
    if database.path is None or " transfers " not in statement:
        database.execute(statement)
        return
    database.execute("CREATE TEMP TABLE transfers AS SELECT * FROM main.transfers")
    database.execute(statement)
    rows = [list(row) for row in database.rows("SELECT * FROM temp.transfers ORDER BY seq, leg")]
    database.execute("DROP TABLE temp.transfers")
    database.execute("DELETE FROM pages")
    for at in range(0, len(rows), PAGE_ROWS):
        page = rows[at : at + PAGE_ROWS]
        has_external = any(row[6] in (1, 2) for row in page)
        text = ",".join(json.dumps(row, separators=(",", ":")) for row in page)
        database.execute("INSERT INTO pages VALUES (?, ?, ?, ?)", (at // PAGE_ROWS, page[0][0], has_external, text))
