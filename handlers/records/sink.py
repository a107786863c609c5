"""Where the records of the prediction log are written: what a sink has to do."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class Sink(Protocol):
    """Only the thread of the prediction log calls a sink."""

    def open(self, schema: "pa.Schema") -> None:
        """Called once, first; also completes what a killed worker left. Raises OSError to be tried again."""

    def write(self, batch: "pa.RecordBatch") -> None:
        """Accepts all records, or raises OSError and accepts none: the same batch is then given again."""

    def tick(self) -> None:
        """Called several times a second, for what is due by time. Raises OSError to be tried again."""

    def close(self) -> None:
        """Called once, last: stores all accepted records. Raises OSError to be tried again."""

    def abandon(self) -> None:
        """Called instead of `close` after an unexpected error: releases files and connections for a new sink.

        Accepted records that can no longer be stored are counted in `lost`.
        """

    @property
    def lost(self) -> int:
        """Accepted records that will never be stored."""
