"""The state: the purchases of each customer in a database, and which vectors were pushed.

Every method is one transaction. A row of `customers` is locked while purchases of this customer are added and
the time of the next vector is chosen, so that a vector with a later time has seen all purchases of an earlier
one, however many consumers write.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from core.addresses import failure, masked
from stream.database import opened
from stream.errors import StoreAway, StreamError
from stream.purchases import Purchase

VERSION = "1"
T = TypeVar("T")

TABLES = sa.MetaData()
FACTS = sa.Table(
    "stream_facts", TABLES, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String)
)
CUSTOMERS = sa.Table(
    "stream_customers",
    TABLES,
    sa.Column("user_id", sa.String, primary_key=True),
    sa.Column("as_of", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("pushed", sa.BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)
"""`as_of`: time of the newest vector that was computed; `pushed`: of the newest that the store confirmed."""
PURCHASES = sa.Table(
    "stream_purchases",
    TABLES,
    sa.Column("user_id", sa.String, primary_key=True),
    sa.Column("identity", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("us", sa.BigInteger, nullable=False),
    sa.Column("amount", sa.Double, nullable=False),
    sa.Column("quantity", sa.Double, nullable=False),
    sa.Column("is_return", sa.Boolean, nullable=False),
    sa.Column("further", sa.String),
    sqlite_with_rowid=False,
)


@dataclass(frozen=True)
class Held:
    """The purchases of some customers, and the time at which their vectors are computed."""

    rows: pa.Table
    """[n] sorted by customer, time and identity: `user_id`, `us`, `is_return`, `amount`, `quantity` and the
    further columns."""
    as_of: int
    """Microseconds: after every purchase in `rows` and after all earlier vectors of these customers."""


@dataclass(frozen=True)
class Added:
    new: int
    repeated: int
    differing: tuple[int, ...]
    """Positions of purchases whose identity the state has with other values. They were not added."""


def fact_of(uri: str, name: str) -> str | None:
    """What `State.note` stored under `name` in the database at `uri`; None also where there is no state.

    Raises StreamError for an address that cannot be used, StoreAway while the database cannot be reached.
    """
    file = sa.engine.make_url(uri).database if uri.startswith("sqlite") else None
    if file is not None and not Path(file).is_file():
        return None  # to open it would make it
    engine = _engine(uri)
    try:
        with _errors(uri), engine.connect() as connection:
            if not sa.inspect(connection).has_table(FACTS.name):
                return None
            return connection.execute(sa.select(FACTS.c.value).where(FACTS.c.name == name)).scalar()
    finally:
        engine.dispose()


class State:
    """The database at `uri`. `further`: the records' further columns -> their types.

    Raises StreamError for an address that cannot be used, or a database of another version or other columns;
    StoreAway, from any method, while the database cannot be reached.
    """

    def __init__(self, uri: str, further: Mapping[str, pa.DataType]) -> None:
        self._uri, self._further = uri, dict(further)
        self._engine = _engine(uri)
        self._local = self._engine.dialect.name == "sqlite"
        self._insert: Any = sqlite.insert if self._local else postgresql.insert
        with self._transaction() as connection:
            TABLES.create_all(connection)
            mine = {"version": VERSION, "further": json.dumps(list(further))}
            rows = [{"name": name, "value": value} for name, value in mine.items()]
            connection.execute(self._insert(FACTS).on_conflict_do_nothing(), rows)
            found = {row.name: row.value for row in connection.execute(sa.select(FACTS))}
        if {name: found[name] for name in mine} != mine:
            raise StreamError(
                f"stream.state {masked(uri)}: made for other columns of the records; name an empty database"
                " and run `churn stream load`"
            )

    def add(
        self, purchases: Sequence[Purchase], now: int, compute: Callable[[Held], T]
    ) -> tuple[Added, T, int]:
        """Add purchases, compute the vectors of their customers, and note the time of these.

        The result of `compute` is returned with the time. If it raises, nothing is added.
        """
        with self._transaction() as connection:
            users = sorted({purchase.user_id for purchase in purchases})
            latest = self._lock(connection, users)
            new = self._insert_new(connection, purchases)
            stored = self._stored(connection, users)
            differing = self._differing(purchases, stored)
            added = Added(new, len(purchases) - new - len(differing), differing)
            computed, as_of = self._vectors(connection, users, stored, max(now, latest + 1), compute)
        return added, computed, as_of

    def touch(self, users: Sequence[str], now: int, compute: Callable[[Held], T]) -> tuple[T, int]:
        """Compute the vectors of `users` anew; returns the result of `compute`, and the time."""
        with self._transaction() as connection:
            users = sorted(users)
            latest = self._lock(connection, users)
            stored = self._stored(connection, users)
            return self._vectors(connection, users, stored, max(now, latest + 1), compute)

    def newest(self, users: Sequence[str], compute: Callable[[Held], T]) -> list[tuple[list[str], T, int]]:
        """The newest vectors of `users` as they were computed, in groups of equal time.

        Times stay as they are: two consumers that push for one customer would overtake each other for ever.
        """
        with self._transaction() as connection:
            self._lock(connection, sorted(users))
            query = sa.select(CUSTOMERS.c.user_id, CUSTOMERS.c.as_of).where(CUSTOMERS.c.user_id.in_(users))
            groups: dict[int, list[str]] = {}
            for user, as_of in connection.execute(query):
                groups.setdefault(as_of, []).append(user)
            return [
                (mine, compute(Held(self._table(self._stored(connection, mine)), as_of)), as_of)
                for as_of, mine in sorted(groups.items())
            ]

    def confirm(self, users: Sequence[str], as_of: int) -> list[str]:
        """Note that the store has the vectors of this time. Returns those of `users` for whom another
        consumer has computed a later vector meanwhile."""
        mine = CUSTOMERS.c.user_id.in_(users)
        with self._transaction() as connection:
            connection.execute(
                sa.update(CUSTOMERS).where(mine, CUSTOMERS.c.pushed < as_of).values(pushed=as_of)
            )
            later = sa.select(CUSTOMERS.c.user_id).where(mine, CUSTOMERS.c.as_of > as_of)
            return list(connection.execute(later).scalars())

    def unconfirmed(self, limit: int, before: int) -> list[str]:
        """Customers whose newest vector was computed before this time, but not confirmed by the store."""
        late = sa.and_(CUSTOMERS.c.as_of > CUSTOMERS.c.pushed, CUSTOMERS.c.as_of < before)
        query = sa.select(CUSTOMERS.c.user_id).where(late).limit(limit)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def customers(self, size: int, after_us: int | None = None) -> Iterator[list[str]]:
        """All customers in pages; with `after_us` only those with a vector that is later."""
        last = ""
        while True:
            query = sa.select(CUSTOMERS.c.user_id).where(CUSTOMERS.c.user_id > last)
            if after_us is not None:
                query = query.where(CUSTOMERS.c.as_of > after_us)
            with self._transaction() as connection:
                page = connection.execute(query.order_by(CUSTOMERS.c.user_id).limit(size)).scalars().all()
            if not page:
                return
            yield list(page)
            last = page[-1]

    def load(self, purchases: Iterable[Sequence[Purchase]]) -> int:
        """Add the purchases of the records, in batches; returns how many were new."""
        new = 0
        for batch in purchases:
            with self._transaction() as connection:
                self._lock(connection, sorted({purchase.user_id for purchase in batch}))
                new += self._insert_new(connection, batch)
        return new

    def erase(self, users: Sequence[str]) -> int:
        """Remove customers; returns the number of their purchases."""
        with self._transaction() as connection:
            found = connection.execute(sa.delete(PURCHASES).where(PURCHASES.c.user_id.in_(users)))
            connection.execute(sa.delete(CUSTOMERS).where(CUSTOMERS.c.user_id.in_(users)))
            return int(found.rowcount)

    def fact(self, name: str) -> str | None:
        """What `note` stored under this name."""
        with self._transaction() as connection:
            query = sa.select(FACTS.c.value).where(FACTS.c.name == name)
            return connection.execute(query).scalar_one_or_none()

    def note(self, name: str, value: str) -> None:
        with self._transaction() as connection:
            row = self._insert(FACTS).values(name=name, value=value)
            connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"value": value}))

    def close(self) -> None:
        self._engine.dispose()

    def _lock(self, connection: sa.Connection, users: Sequence[str]) -> int:
        """Lock the customers in one order, so that consumers wait and do not deadlock; the latest `as_of`."""
        if users:
            rows = [{"user_id": user} for user in users]
            connection.execute(self._insert(CUSTOMERS).on_conflict_do_nothing(), rows)
        query = (
            sa.select(CUSTOMERS.c.as_of).where(CUSTOMERS.c.user_id.in_(users)).order_by(CUSTOMERS.c.user_id)
        )
        found = connection.execute(query if self._local else query.with_for_update()).scalars().all()
        return max(found, default=0)

    def _insert_new(self, connection: sa.Connection, purchases: Sequence[Purchase]) -> int:
        """Insert those whose identity the state does not have; their number."""
        if not purchases:
            return 0
        rows = [self._row(purchase) for purchase in purchases]
        # drivers do not count the rows of many statements alike
        insert = self._insert(PURCHASES).on_conflict_do_nothing().returning(PURCHASES.c.identity)
        return len(connection.execute(insert, rows).all())

    def _stored(self, connection: sa.Connection, users: Sequence[str]) -> list[Any]:
        query = sa.select(PURCHASES).where(PURCHASES.c.user_id.in_(users))
        return sorted(connection.execute(query).all(), key=lambda row: (row.user_id, row.us, row.identity))

    def _vectors(
        self,
        connection: sa.Connection,
        users: Sequence[str],
        stored: Sequence[Any],
        earliest: int,
        compute: Callable[[Held], T],
    ) -> tuple[T, int]:
        as_of = max(earliest, max((row.us + 1 for row in stored), default=0))
        computed = compute(Held(self._table(stored), as_of))
        connection.execute(sa.update(CUSTOMERS).where(CUSTOMERS.c.user_id.in_(users)).values(as_of=as_of))
        return computed, as_of

    def _differing(self, purchases: Sequence[Purchase], stored: Sequence[Any]) -> tuple[int, ...]:
        """Positions of purchases that are stored with other values."""
        values = {(row.user_id, row.identity): tuple(row) for row in stored}
        return tuple(
            at
            for at, one in enumerate(purchases)
            if values[one.user_id, one.identity] != tuple(self._row(one).values())
        )

    def _row(self, purchase: Purchase) -> dict[str, Any]:
        further = json.dumps(purchase.further) if purchase.further else None
        return {
            "user_id": purchase.user_id, "identity": purchase.identity, "us": purchase.us,
            "amount": purchase.amount, "quantity": purchase.quantity, "is_return": purchase.is_return,
            "further": further,
        }  # fmt: skip

    def _table(self, stored: Sequence[Any]) -> pa.Table:
        columns: dict[str, Any] = {
            "user_id": pa.array([row.user_id for row in stored], pa.string()),
            "us": pa.array([row.us for row in stored], pa.int64()),
            "is_return": pa.array([row.is_return for row in stored], pa.bool_()),
            "amount": pa.array([row.amount for row in stored], pa.float64()),
            "quantity": pa.array([row.quantity for row in stored], pa.float64()),
        }
        values = [json.loads(row.further) for row in stored] if self._further else []
        for at, (name, kind) in enumerate(self._further.items()):
            columns[name] = pa.array([one[at] for one in values], kind)
        return pa.table(columns)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with _errors(self._uri), self._engine.begin() as connection:
            yield connection


def _engine(uri: str) -> sa.Engine:
    try:
        return opened(uri)
    except (ArgumentError, ImportError) as error:
        raise StreamError(failure("stream.state", uri, error)) from None


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreAway(failure("stream.state", uri, error)) from None
