"""The rows of all tables of a database, as JSON that SQLite and PostgreSQL both can take again.

Columns are reflected from the database, not declared here: MLflow and Optuna own their tables. The tables of
the target are made by their owner before; only rows are moved, in one transaction.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, MetaData, NullPool, Table, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import JSON, NullType, Text

from core.addresses import failure
from pipelines.backup.vault import BackupError, Vault

ROWS = 20_000
"""Rows of an object."""
VERSIONS = ("alembic_version", "rollout_version", "version_info")
"""Tables that state the version of the other ones; they have to be equal, and are not written."""
APPENDED = "is appended only"
"""What the tables of rollouts and decisions answer to a deletion (rollout/database/migrations)."""
Moves = Sequence[tuple[str, str]]
"""Prefixes of addresses and paths, and what replaces each."""


def save_tables(uri: str, vault: Vault) -> dict[str, Any]:
    """All rows, as of one moment: tables -> objects and number of rows, and the versions of the tables."""
    with _reached(uri), _connected(uri) as connection:
        tables = _tables(connection)
        versions = {name: _rows(connection, tables[name]) for name in VERSIONS if name in tables}
        saved = {
            name: _saved(connection, table, vault) for name, table in tables.items() if name not in VERSIONS
        }
        return {"versions": versions, "tables": saved}


def load_tables(uri: str, record: Mapping[str, Any], vault: Vault, moves: Moves = ()) -> int:
    """Replace all rows by the saved ones, in one transaction; return their number. Nothing is written to a
    database that has these rows already.

    Raises BackupError when the tables have another version than those that were saved, and for a database
    with another history of rollouts, which is only ever appended to.
    """
    with _reached(uri), _connected(uri) as connection:
        tables = _tables(connection)
        for name, rows in record["versions"].items():
            if name not in tables or _rows(connection, tables[name]) != rows:
                raise BackupError(
                    f"{failure('database', uri, ValueError('its tables have another version'))}; restore with"
                    " the release that made the backup, and upgrade after that"
                )
        ordered = [table for table in tables.values() if table.name not in VERSIONS]
        if all(_has_rows(connection, table, record, vault, moves) for table in ordered):
            return sum(int(table["rows"]) for table in record["tables"].values())
        for table in reversed(ordered):
            connection.execute(table.delete())
        counted = 0
        for table in ordered:
            for rows in _saved_rows(table, record, vault, moves):
                connection.execute(table.insert(), rows)
                counted += len(rows)
            _continue_numbers(connection, table)
        return counted


def _saved(connection: Connection, table: Table, vault: Vault) -> dict[str, Any]:
    objects, count = [], 0
    # a fixed order, so that unchanged rows are the same object
    order = list(table.primary_key.columns) or list(table.columns)
    found = connection.execution_options(yield_per=ROWS).execute(_select(table).order_by(*order))
    for rows in found.mappings().partitions(ROWS):
        count += len(rows)
        content = [{name: _encoded(value) for name, value in row.items()} for row in rows]
        objects.append(vault.put(json.dumps(content, separators=(",", ":")).encode()))
    return {"objects": objects, "rows": count}


def _saved_rows(
    table: Table, record: Mapping[str, Any], vault: Vault, moves: Moves
) -> Iterator[list[dict[str, Any]]]:
    for digest in record["tables"].get(table.name, {"objects": []})["objects"]:
        yield [_decoded(row, table, moves) for row in json.loads(vault.get(digest))]


def _has_rows(
    connection: Connection, table: Table, record: Mapping[str, Any], vault: Vault, moves: Moves
) -> bool:
    """Whether the table has the saved rows and no others."""
    saved = (row for rows in _saved_rows(table, record, vault, moves) for row in rows)
    order = list(table.primary_key.columns) or list(table.columns)
    present = connection.execute(_select(table).order_by(*order)).mappings()
    return all(one == other for one, other in zip_longest(map(dict, present), saved))


def _tables(connection: Connection) -> dict[str, Table]:
    """The tables in the order of their references. JSON stays text: a null in it is not a missing value."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = NullType()
                column.info["text"] = True
    return {table.name: table for table in metadata.sorted_tables}


def _select(table: Table) -> Any:
    return sqlalchemy.select(
        *(
            sqlalchemy.cast(column, Text).label(column.name) if "text" in column.info else column
            for column in table.columns
        )
    )


def _rows(connection: Connection, table: Table) -> list[list[Any]]:
    return sorted([list(row) for row in connection.execute(_select(table))])


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"moment": value.isoformat()}
    if isinstance(value, float) and not (-1e308 < value < 1e308):
        return {"float": repr(value)}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise BackupError(f"a database has a value of type {type(value).__name__}, which a backup cannot hold")


def _decoded(row: Mapping[str, Any], table: Table, moves: Moves) -> dict[str, Any]:
    return {name: _value(value, table.columns[name].type, moves) for name, value in row.items()}


def _value(value: Any, kind: Any, moves: Moves) -> Any:
    if isinstance(value, str):
        return _moved(value, moves)
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "bytes":
        return base64.b64decode(content)
    if tag == "float":
        return float(content)
    moment = datetime.fromisoformat(content)
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return zoned if getattr(kind, "timezone", False) else zoned.astimezone(UTC).replace(tzinfo=None)


def _moved(text: str, moves: Moves) -> str:
    """The text with each address or path that begins with the old prefix at its new place, also in JSON."""
    for old, new in moves:
        if text == old or text.startswith(f"{old}/"):
            return new + text[len(old) :]
        if text[:1] in ("{", "["):
            text = text.replace(f'"{old}/', f'"{new}/')
    return text


def _continue_numbers(connection: Connection, table: Table) -> None:
    """PostgreSQL: the next generated number of a column follows the largest one."""
    if connection.dialect.name != "postgresql":
        return
    for column in table.columns:
        default = getattr(column.server_default, "arg", None)
        if default is not None and "nextval(" in str(default):
            highest = connection.execute(sqlalchemy.select(sqlalchemy.func.max(column))).scalar()
            if highest is not None:
                name = f'"{table.name}"'
                sequence = sqlalchemy.func.pg_get_serial_sequence(name, column.name)
                connection.execute(sqlalchemy.select(sqlalchemy.func.setval(sequence, highest)))


@contextmanager
def _connected(uri: str) -> Iterator[Connection]:
    """One transaction, in which all reads see the same moment."""
    engine = create_engine(uri, poolclass=NullPool)
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # the driver would begin at the first write
        yield connection


@contextmanager
def _reached(uri: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        if APPENDED in str(error):
            place = failure("database", uri, ValueError(f"the history {APPENDED}"))
            raise BackupError(
                f"{place}: it has another history, which is not replaced; name an empty database"
            ) from None
        raise BackupError(f"{failure('database', uri, error)}; start it, or correct its address") from None
