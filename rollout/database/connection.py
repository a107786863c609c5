"""The connection to `rollout.database`, whose tables are migrated to the newest version."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from core.addresses import failure
from rollout.database.tables import NEWEST, VERSION_TABLE
from rollout.errors import RolloutError

BUSY_S = 30
"""How long SQLite waits for another writer."""
LOCK = 0x63687572
"""The number of PostgreSQL's advisory lock during a migration: `chur` in ASCII."""


def open_database(uri: str) -> Engine:
    """Open it, and migrate its tables where needed. Any number of processes may do so at once.

    Raises RolloutError, with the password masked, when it cannot be reached or its driver is not installed.
    """
    with reaching(uri):
        url = make_url(uri)
        local = url.get_backend_name() == "sqlite"
        if local and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        if local:  # a new connection each time is cheap for a file, and none is inherited by another process
            engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_S})
        else:
            engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": BUSY_S})
        if not _up_to_date(engine):
            _migrate(uri, local)
        return engine


def _up_to_date(engine: Engine) -> bool:
    """Without a lock, so that a reader never waits."""
    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table(VERSION_TABLE):
            return False
        found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608
        return found.scalar_one_or_none() == NEWEST


def _migrate(uri: str, local: bool) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with locked(uri, local) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turns errors of the database into a RolloutError of one line, except IntegrityError."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, ImportError) as error:
        raise RolloutError(failure("rollouts", uri, error)) from None


@contextmanager
def locked(uri: str, local: bool) -> Iterator[Connection]:
    """A connection in one transaction, which excludes other migrations."""
    waits = {"timeout": BUSY_S} if local else {"connect_timeout": BUSY_S}
    engine = create_engine(uri, poolclass=NullPool, connect_args=waits)
    if local:
        # the driver would begin no transaction before DDL, and one without a write lock otherwise
        @sqlalchemy.event.listens_for(engine, "connect")
        def _ours(connection: object, record: object) -> None:
            connection.isolation_level = None  # type: ignore[attr-defined]

        @sqlalchemy.event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        yield connection


class Database:
    """The base of all queries; each of their methods is one transaction."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._engine = open_database(uri)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with reaching(self._uri), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with reaching(self._uri), self._engine.connect() as connection:
            yield connection
