"""Applies the spec's policies on missing values, stale vectors and unknown customers to what was read.

The spec (bundle.json) contains `on_missing` for each feature, and `on_stale` and `on_unknown` for the view:

- `default`: use the feature's default, or null, which training also had;
- `degrade`: use the values as they are, and report them in `status` and `reasons`;
- `refuse`: no score for this customer.

With `on_stale: default`, a stale vector is not used. The customer is then scored like an unknown one with
`on_unknown: score`: every feature is its default or null (cold start). Derived features are computed from the
resulting features, with the arithmetic of Feast's on-demand view (features/repo/definitions.py). A vector
whose time is more than FUTURE after now is stale too: a clock is wrong, here or where features are built, so
that its age is unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from handlers.store.columns import PackedColumns
from handlers.store.stored import Stored

Status = Literal["ok", "stale", "unknown", "degraded", "refused"]
FUTURE = timedelta(minutes=5)
"""Tolerated difference of clocks. With NTP it is below a second; without, clocks drift by seconds per day."""


@dataclass(frozen=True)
class Vectors:
    """One feature vector per customer, in the order of the requested ids."""

    ids: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    """Name -> a value per customer; None for null, and for all values of a customer who gets no score."""
    timestamps: tuple[datetime | None, ...]
    """The time of each vector's snapshot (UTC); None for an unknown customer."""
    status: tuple[Status, ...]
    missing: Mapping[str, int] = field(default_factory=dict)
    """Name -> number of customers in the store without a value; only names with such customers."""
    reasons: tuple[str | None, ...] = ()
    """The reason why a customer is not `ok`; empty when all are."""
    retry_after_s: float | None = None
    """When customers in `lost` may be requested again; None when the store could be read."""
    lost: frozenset[int] = frozenset()
    """Positions of customers who could not be read and have no last known vector; they are `refused`."""


class Policies:
    """The policies of one spec."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._features = [str(feature["name"]) for feature in spec["features"]]
        self._defaults = {str(f["name"]): f.get("default") for f in spec["features"]}
        self._on_missing = {str(f["name"]): str(f.get("on_missing", "default")) for f in spec["features"]}
        self._ratios = [
            (str(r["name"]), str(r["numerator"]), str(r["denominator"]), float(r["floor"]))
            for r in spec["derived"]
        ]
        self._ttl = timedelta(days=float(spec["ttl_days"]))
        self._on_stale = str(spec.get("on_stale", "degrade"))
        self._on_unknown = str(spec.get("on_unknown", "refuse"))

    def apply(self, ids: Sequence[str], stored: Stored, now: datetime) -> Vectors:
        """The vectors of `ids` at `now`. Changes the columns of `stored`."""
        packed = stored.columns
        if isinstance(packed, PackedColumns) and (
            fresh := self._apply_when_all_fresh(ids, packed, stored.timestamps, now)
        ):
            return fresh
        columns = {name: packed[name] for name in self._features}
        status, reasons = self._ages(stored.timestamps, stored.corrupt, now)
        missing = self._gaps(columns, stored.timestamps, status, reasons)
        cold = self._cold_start_rows(status)
        emptied = [at for at, one in enumerate(status) if one == "refused"] if "refused" in status else []
        for at in emptied:
            for column in columns.values():
                column[at] = None
        for at in cold:
            for name, column in columns.items():
                column[at] = self._defaults[name]
        derived = {
            name: _ratio(columns[top], columns[bottom], floor) for name, top, bottom, floor in self._ratios
        }
        return Vectors(
            ids=tuple(ids),
            columns=columns | derived,
            timestamps=tuple(stored.timestamps),
            status=tuple(status),
            missing=missing,
            reasons=tuple(reasons.get(at) for at in range(len(ids))) if reasons else (),
        )

    def is_fresh(self, moment: datetime, now: datetime) -> bool:
        """Whether a vector of time `moment` is within the TTL, and not in the future."""
        return now - self._ttl <= moment <= now + FUTURE

    def _apply_when_all_fresh(
        self, ids: Sequence[str], packed: PackedColumns, timestamps: Sequence[datetime | None], now: datetime
    ) -> Vectors | None:
        """The result as whole arrays if all vectors are fresh and need no default or reason; else None."""
        if not all(moment is not None and self.is_fresh(moment, now) for moment in set(timestamps)):
            return None
        missing = packed.missing()
        if any(self._on_missing[name] != "default" or self._defaults[name] is not None for name in missing):
            return None
        for name, top, bottom, floor in self._ratios:
            with np.errstate(invalid="ignore", over="ignore"):
                packed.derived[name] = packed.numbers(top) / np.maximum(packed.numbers(bottom), floor)
        ok: Status = "ok"
        return Vectors(tuple(ids), packed, tuple(timestamps), (ok,) * len(ids), missing)

    def _ages(
        self, timestamps: Sequence[datetime | None], corrupt: Mapping[int, str], now: datetime
    ) -> tuple[list[Status], dict[int, str]]:
        oldest, newest = now - self._ttl, now + FUTURE
        status: list[Status] = [
            "unknown" if moment is None else "ok" if oldest <= moment <= newest else "stale"
            for moment in timestamps
        ]
        reasons: dict[int, str] = {}
        if status.count("ok") < len(status):
            for at, moment in enumerate(timestamps):
                if at in corrupt:
                    status[at] = "refused"
                    reasons[at] = f"the store holds unreadable features: {corrupt[at]}"
                elif moment is None:
                    reasons[at] = "this customer is not in the feature store"
                elif status[at] == "stale":
                    reasons[at] = _why_stale(moment, now, self._ttl)
                    if self._on_stale == "refuse":
                        status[at] = "refused"
        return status, reasons

    def _gaps(
        self,
        columns: Mapping[str, list[Any]],
        timestamps: Sequence[datetime | None],
        status: list[Status],
        reasons: dict[int, str],
    ) -> dict[str, int]:
        """Apply `on_missing`, feature by feature. Returns the number of missing values of each feature."""
        unknown = sum(moment is None for moment in timestamps)
        missing: dict[str, int] = {}
        for name in self._features:
            column = columns[name]
            if (lacking := column.count(None) - unknown) == 0:
                continue
            missing[name] = lacking
            policy, default = self._on_missing[name], self._defaults[name]
            if policy == "default" and default is None:
                continue  # the value remains null
            for at, value in enumerate(column):
                if value is not None or timestamps[at] is None:
                    continue
                if policy == "default":
                    column[at] = default
                    continue
                reasons[at] = "; ".join([*filter(None, [reasons.get(at)]), f"{name} is missing"])
                if policy == "refuse":
                    status[at] = "refused"
                elif status[at] == "ok":
                    status[at] = "degraded"
        return missing

    def _cold_start_rows(self, status: Sequence[Status]) -> list[int]:
        """Positions of the customers who are scored from defaults alone."""
        cold = {"stale"} if self._on_stale == "default" else set()
        if self._on_unknown == "score":
            cold.add("unknown")
        return [at for at, one in enumerate(status) if one in cold] if cold else []


def _ratio(tops: Sequence[Any], bottoms: Sequence[Any], floor: float) -> list[float | None]:
    values = [
        None if top is None or bottom is None else float(top) / max(float(bottom), floor)
        for top, bottom in zip(tops, bottoms, strict=True)
    ]
    # Feast's view returns null for NaN
    return [value if value == value else None for value in values]


def _why_stale(moment: datetime, now: datetime, ttl: timedelta) -> str:
    if moment > now:
        return f"features are dated {(moment - now).total_seconds():.0f} s in the future: a clock is wrong"
    return f"features are {(now - moment).days} days old, more than the {ttl.days} that the spec allows"
