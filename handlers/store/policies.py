"""From what the store holds to what the network is given: age, gaps and unknown customers, by the spec.

The spec (bundle.json) says `on_missing` for each feature, and `on_stale` and `on_unknown` for the view:

- `default`: the feature's default stands in, or null, which the network knows from training;
- `degrade`: answered as it is, and said so in `status` and `reasons`;
- `refuse`: no score for this customer.

A stale vector under `default` is not used, and the customer is scored like an unknown one under `score`:
every feature at its default or null (the cold start). Derived features follow from the features given, by the
arithmetic of Feast's on-demand view (features/repo/definitions.py). Times later than FUTURE from now are no
better than old ones: a clock is wrong, here or where features are made, and nobody can say how old they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from handlers.store.packed import PackedColumns
from handlers.store.stored import Stored

Status = Literal["ok", "stale", "unknown", "degraded", "refused"]
FUTURE = timedelta(minutes=5)
"""How far clocks may differ: NTP holds them within a second, a badly kept machine drifts seconds a day."""


@dataclass(frozen=True)
class Vectors:
    """One feature vector a customer, in the order asked for."""

    ids: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]
    """Name -> a value a customer; None for null, and everywhere for a customer who gets no score."""
    timestamps: tuple[datetime | None, ...]
    """The moment each vector looks back from (UTC)."""
    status: tuple[Status, ...]
    missing: Mapping[str, int] = field(default_factory=dict)
    """Name -> how many customers lack it, of those whom the store knows; only names that somebody lacks."""
    reasons: tuple[str | None, ...] = ()
    """Why a customer is not `ok`; empty: all are."""
    retry_after_s: float | None = None
    """Set when the store could not be read for some: when those in `lost` may ask again."""
    lost: frozenset[int] = frozenset()
    """Positions of those for whom the store could not be read and nothing stands in; they are `refused`."""


class Policies:
    """The rules of one spec."""

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

    def fresh(self, moment: datetime, now: datetime) -> bool:
        return now - self._ttl <= moment <= now + FUTURE

    def _apply_when_all_fresh(
        self, ids: Sequence[str], packed: PackedColumns, timestamps: Sequence[datetime | None], now: datetime
    ) -> Vectors | None:
        """The same, by whole arrays, where nobody needs a default, a refusal or a word; else None."""
        if not all(moment is not None and self.fresh(moment, now) for moment in set(timestamps)):
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
                    reasons[at] = "the feature store does not know this customer"
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
        """Count, fill, degrade or refuse, feature by feature."""
        nobody = sum(moment is None for moment in timestamps)
        missing: dict[str, int] = {}
        for name in self._features:
            column = columns[name]
            if (lacking := column.count(None) - nobody) == 0:
                continue
            missing[name] = lacking
            policy, default = self._on_missing[name], self._defaults[name]
            if policy == "default" and default is None:
                continue  # null it stays
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
        """Who is scored from defaults alone."""
        cold = {"stale"} if self._on_stale == "default" else set()
        if self._on_unknown == "score":
            cold.add("unknown")
        return [at for at, one in enumerate(status) if one in cold] if cold else []


def _ratio(tops: Sequence[Any], bottoms: Sequence[Any], floor: float) -> list[float | None]:
    values = [
        None if top is None or bottom is None else float(top) / max(float(bottom), floor)
        for top, bottom in zip(tops, bottoms, strict=True)
    ]
    # what is no number comes out of Feast's view as null
    return [value if value == value else None for value in values]


def _why_stale(moment: datetime, now: datetime, ttl: timedelta) -> str:
    if moment > now:
        return f"features are dated {(moment - now).total_seconds():.0f} s in the future: a clock is wrong"
    return f"features are {(now - moment).days} days old, more than the {ttl.days} that the spec allows"
