"""Drift of each feature against the snapshot that the model was trained on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

BINS = 10
FLOOR = 1e-4
"""Share that replaces that of an empty bin, so that one customer in a new bin does not make the index
infinite."""


def drift_over_time(snapshots: Path, features: Iterable[str], reference: pd.Timestamp) -> pd.DataFrame:
    """Population stability index of each feature at each snapshot against the snapshot `reference`.

    Returns one row per (event_timestamp, feature) with the column `psi`. One column is in memory at a time.
    """
    table = ds.dataset(snapshots)
    moments = table.to_table(columns=["event_timestamp"])["event_timestamp"]
    rows: list[dict[str, object]] = []
    for feature in features:
        column = table.to_table(columns=[feature])[feature]
        groups = {
            moment: column.filter(pc.equal(moments, moment)) for moment in pc.unique(moments).to_pylist()
        }
        shares = _binned(groups[reference.to_pydatetime()], groups.values())
        expected = shares[list(groups).index(reference.to_pydatetime())]
        rows += [
            {"event_timestamp": moment, "feature": feature, "psi": psi(expected, actual)}
            for moment, actual in zip(groups, shares, strict=True)
        ]
    return pd.DataFrame(rows)


def psi(expected: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> float:
    """Population stability index of two vectors of bin shares [bins], each summing to 1.

    The symmetric Kullback-Leibler divergence (Jeffreys, 1946), known by this name from credit scoring
    (Siddiqi, 2006, Credit Risk Scorecards).
    """
    e, a = np.maximum(expected, FLOOR), np.maximum(actual, FLOOR)
    return float(np.sum((a - e) * np.log(a / e)))


def decile_edges(reference: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inner edges of BINS quantile bins of the numbers [B] of a reference, ascending; NaN is left out.

    Counts have many ties: equal deciles are merged, so that there are fewer bins. None without numbers.
    """
    known = reference[~np.isnan(reference)]
    if not len(known):
        return np.zeros(0)
    return np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))


def bins_of(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The bin of each value [B], from 0 to len(edges); that of NaN is len(edges) + 1."""
    return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))


def _binned(reference: pa.ChunkedArray, groups: Iterable[pa.ChunkedArray]) -> list[npt.NDArray[np.float64]]:
    """Shares of each group [bins], by the reference's deciles or categories; nulls have a separate bin."""
    if pa.types.is_string(reference.type) or pa.types.is_large_string(reference.type):
        categories = pc.unique(reference.drop_null())

        def codes(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
            found = pc.index_in(values, value_set=categories)
            known = pc.fill_null(found, len(categories)).to_numpy()
            return np.where(pc.is_null(values).to_numpy(), len(categories) + 1, known)

        size = len(categories) + 2
    else:
        edges = decile_edges(np.asarray(reference.drop_null().to_numpy(), dtype=float))

        def codes(values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
            return bins_of(np.asarray(values.to_numpy(), dtype=float), edges)

        size = len(edges) + 2
    return [np.bincount(codes(group), minlength=size) / max(len(group), 1) for group in groups]
