"""One process at a time for what must not be done twice, wherever the processes of a study run.

The trials themselves need no such lock: each is claimed by one UPDATE (training/tuning/slots.py).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy


@contextmanager
def one_at_a_time(engine: sqlalchemy.Engine, what: str, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock `what` of a PostgreSQL database during the block; yields whether it is held.

    With `wait` that is always so. It is an advisory lock of a session, which the server releases when the
    connection ends, also when the process or its machine dies. Another database has no such locks: a study in
    SQLite belongs to one command, which locks its workspace, and the answer is always true.
    """
    if engine.dialect.name != "postgresql":
        yield True
        return
    key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big", signed=True)
    with engine.connect() as plain:
        session = plain.execution_options(isolation_level="AUTOCOMMIT")  # no transaction is open meanwhile
        if wait:
            held = True
            session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        else:
            held = bool(session.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
        try:
            yield held
        finally:
            if held:
                session.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
