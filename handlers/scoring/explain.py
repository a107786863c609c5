"""Explains scores: Shapley values of the exported program, in log-odds (`coalitions.py` has the method).

The players are the stored features of the spec; a derived feature is computed from its parts. A feature that
is not in a coalition has its value of the reference customer (medians and most frequent values of the
training data), so the values describe how this customer differs from a typical one. A feature whose value
equals that of the reference is not a player, and its attribution is exactly 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.protocol.messages import Explanation
from handlers.scoring.coalitions import EXACT, Design, design_for

CLOSE = 1e-6
"""Log-odds by which the sum may differ; the rounding of the program's float32 products is smaller."""
EDGE = 1e-15
"""Probabilities are limited to [EDGE, 1 - EDGE], so that log-odds are finite."""
SMALLEST_REASON = 1e-6
"""Log-odds; smaller attributions are not listed as reasons."""

Score = Callable[[Mapping[str, Any]], NDArray[np.float64]]


class NoReference(ValueError):
    """The archive does not contain the reference customer."""


@dataclass(frozen=True)
class Explainer:
    """Explains scores of one program."""

    score: Score
    spec: Mapping[str, Any]
    reference: Mapping[str, Any]
    """Stored feature -> its value for the reference customer; None for missing."""

    @property
    def can_explain(self) -> bool:
        """Whether the archive contains the reference customer."""
        return all(feature["name"] in self.reference for feature in self.spec["features"])

    @cached_property
    def most_rows(self) -> int:
        """The largest number of rows that are scored for one explanation."""
        players = len(self.spec["features"])
        return max(len(design_for(n).coalitions) for n in {min(players, EXACT), players})

    def explain(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> list[Explanation]:
        """One explanation for each of `rows` of the feature columns; the program is called for all at once.

        Raises NoReference if the archive has no reference value of a feature.
        """
        reference = self._checked_reference()
        players = [self._players(columns, row, reference) for row in rows]
        designs = [design_for(len(playing)) for playing in players]
        hybrids = self._hybrids(columns, rows, players, designs, reference)
        log_odds = _log_odds(self.score(hybrids))
        explanations, start = [], 0
        for playing, design in zip(players, designs, strict=True):
            values = log_odds[start : start + len(design.coalitions)]
            explanations.append(self._explanation(playing, design, values))
            start += len(design.coalitions)
        return explanations

    def reasons(
        self, columns: Mapping[str, Sequence[Any]], row: int, why: Explanation, most: int
    ) -> list[str]:
        """The `most` strongest attributions as sentences, with the descriptions of the spec."""
        ranked = sorted(why.attributions.items(), key=lambda one: (-abs(one[1]), one[0]))
        descriptions = {f["name"]: f.get("description") or f["name"] for f in self.spec["features"]}
        return [
            f"{descriptions[name]}: {_words(columns[name][row])} (usually {_words(self.reference[name])}) "
            f"{'raises' if value > 0 else 'lowers'} the risk"
            for name, value in ranked[:most]
            if abs(value) > SMALLEST_REASON
        ]

    def _checked_reference(self) -> Mapping[str, Any]:
        absent = [f["name"] for f in self.spec["features"] if f["name"] not in self.reference]
        if absent:
            raise NoReference(f"this archive has no reference for {absent[0]}; package the model again")
        return self.reference

    def _players(
        self, columns: Mapping[str, Sequence[Any]], row: int, reference: Mapping[str, Any]
    ) -> tuple[str, ...]:
        names = (f["name"] for f in self.spec["features"])
        return tuple(name for name in names if _missing_as_none(columns[name][row]) != reference[name])

    def _hybrids(
        self,
        columns: Mapping[str, Sequence[Any]],
        rows: Sequence[int],
        players: Sequence[tuple[str, ...]],
        designs: Sequence[Design],
        reference: Mapping[str, Any],
    ) -> dict[str, NDArray[Any]]:
        """A row for each customer and coalition: the customer's value of a player, else that of the
        reference.
        """
        hybrids: dict[str, NDArray[Any]] = {}
        for feature in self.spec["features"]:
            name = feature["name"]
            kind = object if feature["dtype"] == "string" else np.float64
            parts = []
            for row, playing, design in zip(rows, players, designs, strict=True):
                part = np.full(len(design.coalitions), reference[name], dtype=kind)
                if name in playing:
                    part[design.coalitions[:, playing.index(name)]] = columns[name][row]
                parts.append(part)
            hybrids[name] = np.concatenate(parts)
        for ratio in self.spec["derived"]:
            floored = np.maximum(hybrids[ratio["denominator"]], ratio["floor"])
            hybrids[ratio["name"]] = hybrids[ratio["numerator"]] / floored
        return hybrids

    def _explanation(
        self, playing: tuple[str, ...], design: Design, values: NDArray[np.float64]
    ) -> Explanation:
        shares = dict(zip(playing, (design.weights @ values).tolist(), strict=True))
        attributions = {f["name"]: shares.get(f["name"], 0.0) for f in self.spec["features"]}
        base, full = float(values[design.empty]), float(values[design.full])
        return Explanation(
            attributions=attributions,
            base_log_odds=base,
            log_odds=full,
            additivity_gap=abs(base + sum(attributions.values()) - full),
            method="exact" if len(playing) <= EXACT else "permutation",
        )


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probabilities, EDGE, 1 - EDGE)
    return np.log(inside) - np.log1p(-inside)


def _missing_as_none(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _words(value: Any) -> str:
    """A value for a sentence: three digits, no decimals for large and for whole numbers."""
    value = _missing_as_none(value)
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
