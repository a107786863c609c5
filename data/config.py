"""The schema of `configs/data.yaml`."""

from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    field_validator,
    model_validator,
)

from core.config import Config
from data.cell.notation import date_problem


def _expression(text: str) -> str:
    from data.cell.expression import parse  # imported late: most configs contain no expression

    parse(text)
    return text


def _condition(text: str) -> str:
    from data.cell.expression import condition

    condition(text)
    return text


ExpressionText = Annotated[str, AfterValidator(_expression)]
"""An expression over the columns of a source. The grammar is in data/cell/expression.py."""
ConditionText = Annotated[str, AfterValidator(_condition)]


class CdnowSource(Config):
    """The CDNOW log (1997-01 to 1998-06), which is part of the wheel `Lifetimes`."""

    kind: Literal["cdnow"]


class TableSource(Config):
    """A table at a path, at any fsspec URI, or in PostgreSQL."""

    kind: Literal["csv", "parquet", "excel", "postgres"]
    """How the table is stored. Excel needs the extra `excel`, PostgreSQL the extra `postgres`. `cdnow`: the
    log that is installed, without further keys."""
    uri: str
    """A file, a pattern, or a folder. For PostgreSQL the connection string, preferably `${NAME}` of an
    environment variable."""
    query: str | None = None
    """PostgreSQL: a SELECT whose rows are read."""
    table: str | None = None
    """PostgreSQL: the table that is read, instead of `query`."""
    sheet: str | int | None = None
    """Excel: the sheet's name, or its number from 0. Default: the only sheet."""
    columns: dict[str, str] = {}
    """Standard name -> name in the table. Transactions need `user_id`, `timestamp`, `amount` (optional:
    `quantity`, `transaction_id`, `order_id`). Labelled tables need `user_id`, `target` (optional:
    `event_timestamp`)."""
    computed: dict[str, ExpressionText] = {}
    """Name -> expression over the table's columns (data/cell/expression.py), for example
    `amount: "Quantity * UnitPrice"`. The name is a standard one that `columns` leaves out, or a new one."""
    where: ConditionText | None = None
    """Only rows for which this expression is true are read. The others are counted and left out."""
    types: dict[str, Literal["int64", "float64", "string"]] = {}
    """Types of further columns. Values that do not fit the type become null. If they are more than
    `max_rejected_share` of the column's values, ingest fails."""
    keep: tuple[str, ...] = ()
    """Further columns to store in the records, in addition to those that features read."""
    user_id_type: Literal["integer", "string"] = "string"
    """Type of the identifiers, also in requests: `{"user_id": 123}` or `{"user_id": "123"}`."""
    number_rows: bool = False
    """True for a table without an identifier: `user_id` is then the row's number, from 1."""
    positive: str | int | float | bool | tuple[str | int | float | bool, ...] = 1
    """The value or values of `target` that mean churned."""
    ignore: tuple[str | int | float | bool, ...] = ()
    """Values of `target` for an outcome that is not known yet. Their rows are set aside, and do not count as
    unusable."""
    duplicates: Literal["refuse", "drop", "keep"] = "refuse"
    """What to do with rows that repeat an earlier row: equal in every mapped column, or for a labelled table
    in `user_id` and time. Different rows with the same `transaction_id` are always an error."""
    group_by: Literal["order_id"] | None = None
    """Combines the lines of an order into one purchase: sums of amounts and quantities, the earliest time."""
    returns: ConditionText | None = "amount < 0 or quantity < 0"
    """Which rows are returns or refunds instead of purchases: an expression over the table's columns and
    `amount`, `quantity`. null: no row is."""
    timezone: str = "UTC"
    """IANA name of the time zone of times that are written without one."""
    dates: str = "iso"
    """How times are written: iso, day_first, month_first, epoch_s, epoch_ms, epoch_us, epoch_ns, or a format
    of strptime such as `%d.%m.%Y`. A time in another format makes its row unusable."""
    currency: bool = False
    """Whether numbers may have a currency (`$1,234.50`, `12,50 EUR`), and brackets for negative values."""
    missing: tuple[str, ...] = ()
    """Words for a missing value, in addition to blanks, for example [NA, "?"]. In a column whose other values
    are numbers, the common words (NA, NaN, NULL, None, n/a) always mean a missing value."""
    options: dict[str, Any] = {}
    """Passed to `pandas.read_csv` or `pyarrow.parquet.ParquetFile`; Excel: `header`, `skiprows`, `nrows`.
    `decimal` and `thousands` define how numbers are written. `date_format` is another name of `dates`.
    `index_col: false` accepts a separator at the end of each row. `storage_options` is passed to fsspec."""

    @field_validator("options")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_RESERVED_OPTIONS & options.keys()):
            raise ValueError(
                f"{', '.join(taken)} cannot be set here: columns and types come from the mapping"
            )
        if options.get("index_col", False) is not False:
            raise ValueError("index_col can only be false: columns come from the mapping")
        for name, remedy in _UNSUPPORTED_OPTIONS.items():
            if name in options:
                raise ValueError(f"{name} {remedy}")
        if "date_format" in options and (problem := date_problem(str(options["date_format"]))):
            raise ValueError(f"date_format: {problem}")
        return options

    @field_validator("dates")
    @classmethod
    def _check_dates(cls, dates: str) -> str:
        if problem := date_problem(dates):
            raise ValueError(problem)
        return dates

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("no such time zone; write it like Europe/Berlin") from None
        return name

    @model_validator(mode="after")
    def _check_consistency(self) -> "TableSource":
        if fixed := sorted(self.types.keys() & self.columns.values()):
            raise ValueError(f"source.types names {', '.join(fixed)}, whose type source.columns decides")
        if mapped := [name for name in self.keep if name in self.columns.values()]:
            raise ValueError(f"source.keep names {mapped[0]}, which source.columns maps; remove it from keep")
        if twice := sorted(self.columns.keys() & self.computed.keys()):
            raise ValueError(
                f"source.computed.{twice[0]}: source.columns maps it already; remove one of both"
            )
        if self.number_rows and "user_id" in {*self.columns, *self.computed}:
            raise ValueError("source.number_rows: source.columns maps user_id already; remove one of both")
        if self.group_by and self.group_by not in {*self.columns, *self.computed}:
            raise ValueError(f"source.group_by: map {self.group_by} in source.columns first")
        if self.dates != "iso" and self.options.get("date_format", self.dates) != self.dates:
            raise ValueError("source.options.date_format: source.dates differs; remove one of both")
        if self.options.get("thousands") == self.options.get("decimal", "."):
            raise ValueError(
                "source.options.thousands: it is the decimal sign too; set source.options.decimal"
            )
        if (self.kind == "postgres") != (self.query is not None or self.table is not None):
            raise ValueError("source.query or source.table: one of both for kind postgres, none for a file")
        return self

    @property
    def expression_columns(self) -> frozenset[str]:
        """The source columns that `computed`, `where` and `returns` read. In `returns`, `amount` and
        `quantity` are the standard columns and are not included."""
        from data.cell.expression import parse

        texts = [*self.computed.values(), *([self.where] if self.where else [])]
        returns = parse(self.returns).columns - {"amount", "quantity"} if self.returns else frozenset()
        return returns.union(*(parse(text).columns for text in texts))

    @property
    def given(self) -> frozenset[str]:
        """The standard columns that this source contains."""
        return frozenset({*self.columns, *self.computed, *(["user_id"] if self.number_rows else [])})


_RESERVED_OPTIONS = {
    *("dtype", "dtype_backend", "converters", "parse_dates"),
    *("columns", "usecols", "chunksize", "iterator"),
}
_UNSUPPORTED_OPTIONS = {
    "dayfirst": "has no effect here; set source.dates to day_first",
    "skipfooter": "is not possible, since a source is read in chunks; leave it out: a total below the rows is"
    " set aside as an unusable row",
}
_COLUMNS = {
    "transactions": ("user_id", "timestamp", "amount", "quantity", "transaction_id", "order_id"),
    "labelled": ("user_id", "target", "event_timestamp"),
}


class DataConfig(Config):
    shape: Literal["transactions", "labelled"]
    """`transactions`: dated purchases, from which the label is derived. `labelled`: one row per customer, or
    per customer and time, with a target."""
    source: Annotated[CdnowSource | TableSource, Field(discriminator="kind")]
    """Where the data come from: a table with the keys below, or `{kind: cdnow}`, the CDNOW log (1997-01 to
    1998-06), which is part of the wheel `Lifetimes`."""
    observed_at: AwareDatetime | None = None
    """Labelled tables without a time column: the time at which the rows were observed."""
    expectations: tuple[dict[str, Any], ...]
    """Great Expectations, each `{type: expect_..., <arguments>}`. `optional: true` skips one when its column
    is absent."""
    max_rejected_share: float = Field(0.01, ge=0, le=1)
    """Share of unusable rows above which ingest fails."""
    mask_key_env: str = "CHURN_MASK_KEY"
    """Name of the environment variable with the key that identifiers are masked with (HMAC). If it is not
    set, the workspace's key is used, and made when absent."""
    keep_versions: int = Field(3, ge=1)
    """How many versions of the records are stored in the workspace, the current one included."""
    store: str | None = None
    """A path or a URI such as `s3://data/churn`: each version is copied there as it becomes current, under
    the sha256 of its manifest, and stays. null: versions are in the workspace only."""

    @model_validator(mode="after")
    def _check_completeness(self) -> "DataConfig":
        if isinstance(self.source, CdnowSource):
            if self.shape != "transactions":
                raise ValueError("source.kind cdnow is a transaction log: set shape to transactions")
            return self
        needed = {"transactions": ("user_id", "timestamp", "amount"), "labelled": ("user_id", "target")}
        if missing := [c for c in needed[self.shape] if c not in self.source.given]:
            raise ValueError(f"source.columns lacks {', '.join(missing)} for shape {self.shape}")
        if unknown := [c for c in self.source.columns if c not in _COLUMNS[self.shape]]:
            known = ", ".join(_COLUMNS[self.shape])
            raise ValueError(
                f"source.columns.{unknown[0]} is not a column of ours: {self.shape} take {known}"
            )
        if self.shape == "labelled" and self.source.duplicates == "keep":
            raise ValueError("source.duplicates cannot be keep: a labelled table has one row a user_id")
        if (
            self.shape == "labelled"
            and "event_timestamp" not in self.source.given
            and self.observed_at is None
        ):
            raise ValueError("a labelled table needs source.columns.event_timestamp or observed_at")
        return self


def utc_text(moment: datetime) -> str:
    """A time as all files of the workspace store it: ISO 8601 with an offset."""
    return moment.isoformat()
