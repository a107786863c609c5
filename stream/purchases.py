"""Turns messages into purchases by the rules of ingest, or states why a message is none.

A message is a JSON object with the source's columns. The cells go through `data.prepare.clean`, as the cells
of a file do: the same notation, computed columns, conditions, returns and types. Customers are masked here,
and a raw identifier goes no further.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.workspace import Workspace
from data.config import DataConfig
from data.delivery import further_types
from data.manifest import mapping_sha256
from data.mask import keyed_numbers
from data.prepare.clean import Cleaner
from data.records.erasure import Erased
from data.records.versions import current_manifest
from data.source.sources import as_table
from handlers.identity import canonical_id, key_check, mask
from stream.errors import StreamError

ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
MOST_BYTES = 100_000
"""A longer message is no purchase."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One row of the records. Two purchases with equal `user_id` and `identity` are the same."""

    user_id: str
    """Masked."""
    identity: int
    """64 bits, signed: the keyed hash by which ingest compares deliveries."""
    us: int
    """Microseconds of UTC."""
    amount: float
    quantity: float
    is_return: bool
    further: tuple[Any, ...] = ()
    """Values of the records' further columns, in their order."""


@dataclass(frozen=True)
class Read:
    """What became of each message, by its position in the batch."""

    purchases: dict[int, Purchase] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    """Position -> why the message is no purchase."""
    left_out: int = 0
    """Messages that `data.source.where` leaves out, or of erased customers."""


class PurchaseReader:
    """Reads messages in the form of the records of a workspace.

    Raises StreamError for a source that a stream cannot have, and for records of another mapping or key.
    """

    def __init__(
        self, config: DataConfig, read: frozenset[str], identity: str | None, files: Workspace, key: bytes
    ) -> None:
        """`read`: the source's columns that features read."""
        manifest = current_manifest(files)
        self._config, self._source, self._key = config, as_table(config), key
        self._identity = _identity_of(config, identity)
        if manifest["shape"] != "transactions":
            raise StreamError("data.shape: a labelled table has no purchases; a stream needs transactions")
        if manifest.get("mapping_sha256") != mapping_sha256(config) or manifest["key_check"] != key_check(
            key
        ):
            raise StreamError(
                "the records were made with other settings of data.source or another mask key; run"
                " `churn ingest`"
            )
        self._types = further_types(manifest)
        self._read = read
        self._erased_file, self._erased, self._erased_at = files.erased, Erased(files.erased, key), 0.0
        cleaner = self._cleaner()
        self.further = {name: ARROW[self._types[name]] for name in cleaner.further.names}
        """The records' further columns -> their types."""
        needed = {*self._source.columns.values(), *self._source.expression_columns, *cleaner.further.names}
        self._columns = sorted(needed - self._source.computed.keys())
        self._decimal = str(self._source.options.get("decimal", "."))

    def read(self, messages: Sequence[bytes | None], now_us: int, future_us: int) -> Read:
        """The purchases in `messages`. One whose time is more than `future_us` after `now_us` is refused."""
        found = Read()
        cells: list[dict[str, str | None]] = []
        places: list[int] = []
        identities: list[str | None] = []
        for place, message in enumerate(messages):
            try:
                content = _object(message)
                row = {name: _cell(name, content.get(name), self._decimal) for name in self._columns}
                identity = None
                if self._identity is not None:
                    identity = _cell(self._identity, content.get(self._identity), ".")
                    if not identity:
                        raise ValueError(f"{self._identity} is missing")
            except ValueError as error:
                found.refused[place] = str(error)
                continue
            cells.append(row)
            places.append(place)
            identities.append(identity)
        if not cells:
            return found
        schema = pa.schema([(name, pa.string()) for name in self._columns])
        cleaned = self._cleaner().clean(pa.Table.from_pylist(cells, schema))
        for at, reason in zip(
            cleaned.rejected.places.to_pylist(), cleaned.rejected.reasons.to_pylist(), strict=True
        ):
            found.refused[places[at - 1]] = reason
        rows = [at - 1 for at in cleaned.places.to_pylist()]
        self._add(found, cleaned.records, [places[row] for row in rows], [identities[row] for row in rows])
        for place, purchase in list(found.purchases.items()):
            if purchase.us > now_us + future_us:
                del found.purchases[place]
                found.refused[place] = "timestamp is in the future"
        counted = len(found.purchases) + len(found.refused)
        return Read(found.purchases, found.refused, len(messages) - counted)

    def _add(
        self, found: Read, records: pa.Table, places: Sequence[int], identities: Sequence[str | None]
    ) -> None:
        """Adds the rows of `records`, except those of erased customers and those without an identity."""
        id_type = self._source.user_id_type
        users = [mask(canonical_id(one, id_type), self._key) for one in records["user_id"].to_pylist()]
        texts: Any = (
            records["transaction_id"]
            if self._identity is None
            else pa.chunked_array([pa.array(identities, pa.string())])
        )
        high, _ = keyed_numbers(texts, self._key)
        here = set(self._known(users))
        keys = high.view("int64").tolist()
        moments = records["timestamp"].cast(pa.int64()).to_pylist()
        amounts, quantities, returns = (
            records[name].to_pylist() for name in ("amount", "quantity", "is_return")
        )
        further = [records[name].to_pylist() for name in self.further]
        for at, place in enumerate(places):
            if keys[at] == 0:
                found.refused[place] = "transaction_id is missing"
            elif users[at] in here:
                found.purchases[place] = Purchase(
                    users[at], keys[at], moments[at], amounts[at], quantities[at], returns[at],
                    tuple(one[at] for one in further),
                )  # fmt: skip

    def _known(self, users: Sequence[str]) -> list[str]:
        """Those who are not on the list of erased customers, which `churn forget` may have changed."""
        changed = _changed_at(self._erased_file)
        if changed != self._erased_at:
            self._erased, self._erased_at = Erased(self._erased_file, self._key), changed
        if not self._erased.has_entries:
            return list(users)
        table = pa.table({"user_id": pa.array(users, pa.string())})
        return list(self._erased.without(table, table["user_id"].combine_chunks())["user_id"].to_pylist())

    def _cleaner(self) -> Cleaner:
        """A new one for each batch, because a cleaner counts the rows of one source."""
        return Cleaner(self._config, self._source, self._read, self._types)


def _identity_of(config: DataConfig, identity: str | None) -> str | None:
    """The field with the identity; None: the source's transaction_id."""
    source = as_table(config)
    if source.group_by is not None:
        raise StreamError(
            "data.source.group_by: a stream cannot add up lines of an order; send each order as one purchase"
        )
    if "transaction_id" in source.given:
        if identity is not None:
            raise StreamError("stream.identity: the source's transaction_id identifies a purchase; remove it")
        return None
    if identity is None:
        raise StreamError(
            "stream.identity: name the field of a message that identifies the purchase, or map the source's"
            " column to data.source.columns.transaction_id; otherwise a repeated message counts twice"
        )
    return identity


def _object(message: bytes | None) -> Mapping[str, Any]:
    """The JSON object in a message. Raises ValueError, without the content, for anything else."""
    if message is None:
        raise ValueError("the message is empty")
    if len(message) > MOST_BYTES:
        raise ValueError(f"the message has more than {MOST_BYTES} bytes")
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        raise ValueError("the message is not JSON") from None
    if not isinstance(content, dict):
        raise ValueError("the message is not a JSON object")
    return content


def _cell(name: str, value: Any, decimal: str) -> str | None:
    """A value as the source's file would have it."""
    if value is None or isinstance(value, str):
        if value is not None and not _is_storable(value):
            raise ValueError(f"{name} has characters that no database stores")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value).replace(".", decimal)
    raise ValueError(f"{name} is not a text, a number or null")


def _is_storable(text: str) -> bool:
    """False for a text with a null byte or half of a surrogate pair, both of which JSON can express."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _changed_at(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
