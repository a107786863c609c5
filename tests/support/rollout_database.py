"""Fixtures: an empty database for rollouts, on SQLite and, marked slow, on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from support.file_target import memory_folder
from support.servers.postgres import postgres


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of a database without tables; that of SQLite is in a folder that does not exist yet."""
    if request.param == "sqlite":
        with memory_folder(tmp_path) as folder:
            yield f"sqlite:///{folder}/not-yet/rollout.db"
        return
    address = request.getfixturevalue("postgres_server")
    name = f"r{abs(hash(request.node.name)) % 10**9}"
    engine = sqlalchemy.create_engine(address + "studies", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    yield address + name
