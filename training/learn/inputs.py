"""The input columns of the network, and the vocabulary of each categorical one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.spec import FeaturesConfig
from handlers.scoring.encoding import encode


@dataclass(frozen=True)
class Inputs:
    """Numeric columns in order, and the values of each categorical column, which have the codes 1, 2, ..."""

    numeric: tuple[str, ...]
    vocabulary: Mapping[str, tuple[str | None, ...]]
    """None is the missing value, if the training rows have any."""
    reference: Mapping[str, float | str | None] = field(default_factory=dict)
    """Median or most frequent value of each stored feature; the baseline of explanations."""

    @classmethod
    def learn(cls, rows: pd.DataFrame, spec: FeaturesConfig) -> Self:
        """The spec's columns, and the categories that occur in `rows` (the training window)."""
        values = {name: _values(rows[name]) for name in spec.categorical}
        return cls(spec.numeric, values, {f.name: _typical(rows[f.name]) for f in spec.features})

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Size of the vocabulary of each categorical column."""
        return tuple(len(values) for values in self.vocabulary.values())

    def encode(self, rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Numbers [B, numeric], NaN for gaps, and category codes [B, C], 0 for unknown values."""
        columns = {name: rows[name].to_numpy() for name in self.numeric}
        for name in self.vocabulary:
            columns[name] = rows[name].astype(object).where(rows[name].notna(), None).to_numpy()
        return encode(columns, self.numeric, self.vocabulary)

    def to_json(self) -> str:
        """The content of inputs.json."""
        content = {
            "numeric": list(self.numeric),
            "vocabulary": {k: list(v) for k, v in self.vocabulary.items()},
            "reference": dict(self.reference),
        }
        return json.dumps(content, indent=1)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Reads a file that contains the text of `to_json`."""
        return cls.from_content(json.loads(file.read_text(encoding="utf-8")))

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """From the parsed JSON of `to_json`."""
        vocabulary = {k: tuple(v) for k, v in content["vocabulary"].items()}
        return cls(tuple(content["numeric"]), vocabulary, dict(content.get("reference", {})))


def _values(column: pd.Series) -> tuple[str | None, ...]:
    known = sorted(column.dropna().unique())
    return (*known, None) if column.isna().any() else tuple(known)


def _typical(column: pd.Series) -> float | str | None:
    """The median of numbers, the most frequent category (the first of ties), None if all are missing."""
    known = column.dropna()
    if known.empty:
        return None
    if pd.api.types.is_numeric_dtype(known):
        return float(known.median())
    return str(known.value_counts().sort_index().idxmax())
