"""What `configs/data.yaml` may say, and the base that every stage's config shares."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator


class Config(BaseModel):
    """Frozen, and an unknown key is an error that names the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CdnowSource(Config):
    """The CDNOW log (1997-01 to 1998-06) that the wheel `Lifetimes` carries."""

    kind: Literal["cdnow"]


class TableSource(Config):
    """A CSV or Parquet file behind a path or any fsspec URI."""

    kind: Literal["csv", "parquet"]
    uri: str
    columns: dict[str, str]
    """Our name -> the table's. Transactions need `user_id`, `timestamp`, `amount` (and take `quantity`,
    `transaction_id`); labelled tables need `user_id`, `target` (and take `event_timestamp`)."""
    types: dict[str, Literal["int64", "float64", "string"]] = {}
    """Types to force on further columns; what cannot be read becomes null."""
    user_id_type: Literal["integer", "string"] = "string"
    positive: str | int | bool = 1
    """The value of `target` that means churned."""
    duplicates: Literal["refuse", "drop", "keep"] = "refuse"
    """Rows equal in every column (or in `transaction_id`, or in `user_id` of a labelled table)."""
    options: dict[str, Any] = {}
    """Passed to `pandas.read_csv` or `pyarrow.parquet.read_table`. `decimal`, `thousands` and
    `date_format` (default: ISO 8601) say how our columns are written; `storage_options` goes to fsspec."""

    @field_validator("options")
    @classmethod
    def _ours_to_decide(cls, options: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_DECIDED_BY_INGEST & options.keys()):
            raise ValueError(
                f"{', '.join(taken)} cannot be set here: columns and types come from the mapping"
            )
        return options

    @model_validator(mode="after")
    def _types_are_of_further_columns(self) -> "TableSource":
        if fixed := sorted(self.types.keys() & self.columns.values()):
            raise ValueError(f"source.types names {', '.join(fixed)}, whose type source.columns decides")
        return self


_DECIDED_BY_INGEST = {
    *("dtype", "dtype_backend", "converters", "parse_dates"),
    *("columns", "usecols", "index_col", "chunksize", "iterator"),
}
_COLUMNS = {
    "transactions": ("user_id", "timestamp", "amount", "quantity", "transaction_id"),
    "labelled": ("user_id", "target", "event_timestamp"),
}


class DataConfig(Config):
    shape: Literal["transactions", "labelled"]
    source: Annotated[CdnowSource | TableSource, Field(discriminator="kind")]
    observed_at: AwareDatetime | None = None
    """Labelled tables without a time column: when the row was observed."""
    expectations: tuple[dict[str, Any], ...]
    """Great Expectations, each `{type: expect_..., <its arguments>}`; `optional: true` skips it when
    the column is absent."""
    max_rejected_share: float = Field(0.01, ge=0, le=1)
    mask_key_env: str = "CHURN_MASK_KEY"

    @model_validator(mode="after")
    def _complete(self) -> "DataConfig":
        if isinstance(self.source, CdnowSource):
            if self.shape != "transactions":
                raise ValueError("source.kind cdnow is a transaction log: set shape to transactions")
            return self
        needed = {"transactions": ("user_id", "timestamp", "amount"), "labelled": ("user_id", "target")}
        if missing := [c for c in needed[self.shape] if c not in self.source.columns]:
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
            and "event_timestamp" not in self.source.columns
            and self.observed_at is None
        ):
            raise ValueError("a labelled table needs source.columns.event_timestamp or observed_at")
        return self


def utc_text(moment: datetime) -> str:
    """The one way a time is written in our files: ISO 8601 with an offset."""
    return moment.isoformat()
