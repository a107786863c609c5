"""Counts the rows of a source and the reasons of rejected ones, and checks that enough rows are usable."""

from dataclasses import dataclass, field

import pyarrow as pa

from core.errors import DataError

DUPLICATE = "duplicate"
IGNORED = "target is one of data.source.ignore"


@dataclass
class Tally:
    """Counts over all chunks so far."""

    rows: int = 0
    left_out: int = 0
    """Rows that `where` leaves out. They are not in `rows`."""
    unusable: int = 0
    reasons: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Reason -> number of rows, first row."""

    def add(self, rows: int, reasons: pa.Array, places: pa.Array) -> None:
        """Add a chunk of `rows` rows. `reasons` and `places` are those of its rejected rows."""
        self.rows += rows
        for reason, place in zip(reasons.to_pylist(), places.to_pylist(), strict=True):
            count, first = self.reasons.get(reason, (0, place))
            self.reasons[reason] = (count + 1, first)
            self.unusable += reason != IGNORED

    def check(self, uri: str, limit: float, records: int) -> None:
        """Raise DataError, with a table of the reasons, when more than the share `limit` of the rows is
        unusable, or no row became one of the `records`.
        """
        if self.rows == 0:
            raise DataError(f"{uri}: data.source.where leaves out all {self.left_out:,} rows; correct it")
        if not records and not self.unusable:
            raise DataError(f"{uri}: data.source.ignore sets all {self.rows:,} rows aside; correct it")
        if self.unusable > limit * self.rows or not records:
            raise self._too_many(uri, limit)

    def _too_many(self, uri: str, limit: float) -> DataError:
        table = [
            {"reason": reason, "rows": rows, "first_row": first}
            for reason, (rows, first) in sorted(self.reasons.items(), key=lambda item: (-item[1][0], item[0]))
            if reason != IGNORED
        ]
        worst = table[0]
        return DataError(
            f"{uri}: {self.unusable:,} of {self.rows:,} rows cannot be used, more than"
            f" data.max_rejected_share {limit:g} allows; most often {worst['reason']}"
            f" ({worst['rows']:,} rows, the first is row {worst['first_row']})",
            table,
        )
