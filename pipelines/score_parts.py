"""Ranges of customers that are scored by several processes, and the one list that is made of them.

A customer's range follows from the masked identifier alone, which is a number of 128 bits, equally spread. So
processes need not agree about anything, the order of files does not matter, and a part may be made twice.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import ServingError
from pipelines.context import Stages
from pipelines.source_ids import SourceIds
from serving.offline.ranked import BATCH, Ranked, check_target, write_ranked

MASKS = 2**128
FACTS = b"churn.part"
"""Key in a part's Parquet metadata: what must be equal in all parts, as JSON."""


@dataclass(frozen=True)
class Part:
    """The part `number` of `of` equal ranges of masked identifiers, counted from 0."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def contains(self, users: pa.Array) -> pa.Array:
        """Whether each masked identifier is in the range, boolean [B]."""
        inside = pc.greater_equal(users, _first(self.number, self.of))
        if self.number + 1 == self.of:
            return inside
        return pc.and_(inside, pc.less(users, _first(self.number + 1, self.of)))

    def of_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of `batch` in the range."""
        return batch.filter(self.contains(batch["user_id"]))

    def file(self, out: Path) -> Path:
        """Where the part of the list `out` is written."""
        return folder_of(out) / f"{self.number}-of-{self.of}.parquet"


def folder_of(out: Path) -> Path:
    """The folder of the parts of the list `out`."""
    return out.with_name(f"{out.name}.parts")


def metadata(facts: Mapping[str, Any]) -> dict[bytes, bytes]:
    """The facts of a part as Parquet metadata."""
    return {FACTS: json.dumps(facts, sort_keys=True).encode()}


def merge_parts(settings: Stages, out: Path, source_ids: bool = False) -> tuple[Ranked, Mapping[str, Any]]:
    """Writes the list `out` from its parts: with the rows of a list that was made at once and, with the same
    libraries, its bytes. `source_ids` adds the source's identifiers; then only the owner may read the file.

    Returns the list and the facts of its parts. Raises ServingError for a part that is missing, cannot be
    read, or was made from another moment, model or settings than the others.
    """
    check_target(out)
    parts = _complete(out)
    facts = {part: _facts(part, file) for part, file in parts.items()}
    same = _agreed(facts, out)
    named = SourceIds(settings, lambda message: None) if source_ids else _unchanged
    ranked = write_ranked(_rows(parts), out, same["top"], finish=named, private=source_ids)
    return ranked, same


def _first(number: int, of: int) -> str:
    """The first mask of a range."""
    return f"u_{-(-number * MASKS // of):032x}"


def _complete(out: Path) -> dict[Part, Path]:
    folder = folder_of(out)
    found = [re.fullmatch(r"(\d+)-of-(\d+)\.parquet", file.name) for file in folder.glob("*-of-*.parquet")]
    parts = [Part(int(name[1]), int(name[2])) for name in found if name is not None]
    numbers = sorted({part.of for part in parts})
    if not numbers:
        raise ServingError(
            f"{folder}: has no parts; run `churn score --part 0/N --out {out}` and so on first"
        )
    if len(numbers) > 1:
        shown = " and of ".join(map(str, numbers))
        raise ServingError(f"{folder}: has parts of {shown}; remove those of the earlier run")
    missing = sorted(set(range(numbers[0])) - {part.number for part in parts})
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", ..." if missing[5:] else "")
        raise ServingError(
            f"{folder}: {len(missing)} of {numbers[0]} parts are missing ({shown}); run"
            f" `churn score --part {missing[0]}/{numbers[0]} --out {out}`"
        )
    return {part: part.file(out) for part in sorted(parts, key=lambda part: part.number)}


def _facts(part: Part, file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((pq.read_schema(file).metadata or {})[FACTS])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        raise ServingError(
            f"{file}: cannot be read as a part; run `churn score --part {part}` again"
        ) from None
    return content


def _agreed(facts: Mapping[Part, Mapping[str, Any]], out: Path) -> Mapping[str, Any]:
    first, *others = facts
    for other in others:
        for key, value in facts[first].items():
            if facts[other].get(key) != value:
                raise ServingError(
                    f"{folder_of(out)}: parts {first} and {other} differ in {key.replace('_', ' ')}"
                    f" ({value} and {facts[other].get(key)}); run the older ones again"
                )
    return facts[first]


def _rows(parts: Mapping[Part, Path]) -> Iterator[pa.RecordBatch]:
    for file in parts.values():
        with pq.ParquetFile(file) as rows:
            for batch in rows.iter_batches(BATCH):
                yield batch.drop_columns(["rank"]).replace_schema_metadata(None)


def _unchanged(ranked: pa.RecordBatch) -> pa.RecordBatch:
    return ranked
