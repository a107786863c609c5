"""Which columns the network reads, and the categories that it knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.spec import FeaturesConfig
from handlers.encoding import encode


@dataclass(frozen=True)
class Inputs:
    """Numeric columns in order, and each categorical column's values; what follows from code 1 on."""

    numeric: tuple[str, ...]
    vocabulary: Mapping[str, tuple[str | None, ...]]
    """None stands for a missing one, where training saw any."""
    reference: Mapping[str, float | str | None] = field(default_factory=dict)
    """Of each stored feature, what a middling customer has: explanations are told against it."""

    @classmethod
    def learn(cls, rows: pd.DataFrame, spec: FeaturesConfig) -> Self:
        """The spec's columns, and the categories that occur in `rows` (the training window)."""
        values = {name: _values(rows[name]) for name in spec.categorical}
        return cls(spec.numeric, values, {f.name: _typical(rows[f.name]) for f in spec.features})

    @property
    def cardinalities(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.vocabulary.values())

    def encode(self, rows: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        columns = {name: rows[name].to_numpy() for name in self.numeric}
        for name in self.vocabulary:
            columns[name] = rows[name].astype(object).where(rows[name].notna(), None).to_numpy()
        return encode(columns, self.numeric, self.vocabulary)

    def to_json(self) -> str:
        content = {
            "numeric": list(self.numeric),
            "vocabulary": {k: list(v) for k, v in self.vocabulary.items()},
            "reference": dict(self.reference),
        }
        return json.dumps(content, indent=1)

    @classmethod
    def read(cls, file: Path) -> Self:
        return cls.from_content(json.loads(file.read_text(encoding="utf-8")))

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """From what `to_json` wrote, parsed."""
        vocabulary = {k: tuple(v) for k, v in content["vocabulary"].items()}
        return cls(tuple(content["numeric"]), vocabulary, dict(content.get("reference", {})))


def _values(column: pd.Series) -> tuple[str | None, ...]:
    known = sorted(column.dropna().unique())
    return (*known, None) if column.isna().any() else tuple(known)


def _typical(column: pd.Series) -> float | str | None:
    """The median of numbers, the most frequent category (of equals the first in order), None of nulls."""
    known = column.dropna()
    if known.empty:
        return None
    if pd.api.types.is_numeric_dtype(known):
        return float(known.median())
    return str(known.value_counts().sort_index().idxmax())
