"""Opens the database of the state."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

BUSY_S = 30
CONNECT_S = 5


def opened(uri: str) -> sa.Engine:
    """The engine for `uri`, of SQLite or PostgreSQL. Raises ArgumentError or ImportError for another one."""
    url = make_url(uri)
    kind = url.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise sa.exc.ArgumentError("use sqlite:///FILE or postgresql+psycopg://...")
    if kind == "postgresql":
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_S})
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_S})

    # the driver would begin a transaction only before a change, after rows were read without a lock
    @sa.event.listens_for(engine, "connect")
    def _ours(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
