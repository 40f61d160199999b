"""A script (see `arrow_reader.py`): copies the transfers of some commands from a SQLite file to an Arrow file.

arrow_dump.py DATABASE FILE FROM_SEQ TO_SEQ
"""

import sys

import pyarrow as pa
from adbc_driver_sqlite import dbapi

BATCH_ROWS = 131_072
QUERY = "SELECT * FROM transfers WHERE seq BETWEEN {:d} AND {:d} ORDER BY seq, leg"


def main(database: str, path: str, from_seq: int, to_seq: int) -> None:
    """Nothing is written to the database."""
    with dbapi.connect(database) as connection, connection.cursor() as cursor:
        cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
        cursor.execute(QUERY.format(from_seq, to_seq))
        reader = cursor.fetch_record_batch()
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
            for part in reader:
                writer.write_batch(part)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
