"""Why a customer scores as they do: Shapley values of the exported program, in log-odds.

The players are the spec's stored features; a derived feature follows the parts that it is computed from. A
feature that is absent from a coalition takes its value of the reference customer (the medians and most
frequent values of training), so that the values say what sets this customer apart from a typical one. A
feature that equals the reference plays no part and gets exactly 0. Up to EXACT players the values are exact;
beyond, they are means over permutations and their reverses, drawn once with a fixed seed: Castro, Gomez and
Tejada (2009), "Polynomial calculation of the Shapley value based on sampling", and for the reverses Mitchell,
Cooper, Frank and Holmes (2022), "Sampling Permutations for Shapley Value Estimation", JMLR 23. Either way
they sum to the difference of the log-odds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.protocol.messages import Explanation

EXACT = 8
"""Players up to which all 2^n coalitions are scored."""
PAIRS = 16
"""Permutations beyond that, each with its reverse: 642 coalitions of 21 players."""
SEED = 20_090_613
CLOSE = 1e-6
"""Log-odds by which the sum may miss; the program's own float32 products round by less."""
EDGE = 1e-15
"""Probabilities are taken as no nearer to 0 and 1 than this: log-odds stay finite."""
WORTH_SAYING = 1e-6

Score = Callable[[Mapping[str, Any]], NDArray[np.float64]]


class NoReference(ValueError):
    """The archive does not say what a typical customer looks like."""


@dataclass(frozen=True)
class Explainer:
    """Explains scores of one program."""

    score: Score
    spec: Mapping[str, Any]
    reference: Mapping[str, Any]
    """Stored feature -> its value of a typical customer, None for missing."""

    @property
    def can_explain(self) -> bool:
        """Whether the archive says what a reference customer looks like."""
        return all(feature["name"] in self.reference for feature in self.spec["features"])

    @cached_property
    def most_rows(self) -> int:
        """Rows that are scored for one explanation, at most."""
        players = len(self.spec["features"])
        return max(len(_design(n).coalitions) for n in {min(players, EXACT), players})

    def explain(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> list[Explanation]:
        """One explanation for each of `rows` of the feature columns, scored in one go.

        Raises NoReference when the archive lacks the reference of a feature.
        """
        reference = self._checked_reference()
        players = [self._players(columns, row, reference) for row in rows]
        designs = [_design(len(playing)) for playing in players]
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
        """The strongest `most` attributions in words, from the spec's descriptions."""
        ranked = sorted(why.attributions.items(), key=lambda one: (-abs(one[1]), one[0]))
        descriptions = {f["name"]: f.get("description") or f["name"] for f in self.spec["features"]}
        return [
            f"{descriptions[name]}: {_said(columns[name][row])} (usually {_said(self.reference[name])}) "
            f"{'raises' if value > 0 else 'lowers'} the risk"
            for name, value in ranked[:most]
            if abs(value) > WORTH_SAYING
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
        designs: Sequence["Design"],
        reference: Mapping[str, Any],
    ) -> dict[str, NDArray[Any]]:
        """A row a coalition and customer: their own value where the feature plays, else the reference's."""
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
        self, playing: tuple[str, ...], design: "Design", values: NDArray[np.float64]
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


@dataclass(frozen=True)
class Design:
    """Which coalitions of n players are scored, and how their values make the n attributions."""

    coalitions: NDArray[np.bool_]
    """[coalitions, n], each once."""
    weights: NDArray[np.float64]
    """[n, coalitions]: attributions = weights @ values."""
    empty: int
    full: int


@lru_cache(maxsize=64)
def _design(players: int) -> Design:
    if players <= EXACT:
        return _all_coalitions(players)
    return _along_permutations(players)


def _all_coalitions(n: int) -> Design:
    """Shapley's own formula: |S|! (n - |S| - 1)! / n! for a player who joins S."""
    codes = np.arange(2**n)
    coalitions = (codes[:, None] >> np.arange(n) & 1).astype(bool)
    sizes = coalitions.sum(1)
    weights = np.zeros((n, 2**n))
    for code, size in zip(codes.tolist(), sizes.tolist(), strict=True):
        for player in range(n):
            if coalitions[code, player]:
                weights[player, code] = factorial(size - 1) * factorial(n - size) / factorial(n)
            else:
                weights[player, code] = -factorial(size) * factorial(n - size - 1) / factorial(n)
    return Design(coalitions, weights, empty=0, full=2**n - 1)


def _along_permutations(n: int) -> Design:
    """Who joins in which order: each step's difference is that player's, the steps sum to the whole."""
    draws = np.random.default_rng((SEED, n))
    orders = [draws.permutation(n) for _ in range(PAIRS)]
    orders += [order[::-1] for order in orders]
    steps = np.stack([np.argsort(order)[None, :] < np.arange(n + 1)[:, None] for order in orders])
    coalitions, where = np.unique(steps.reshape(-1, n), axis=0, return_inverse=True)
    position = where.reshape(len(orders), n + 1)
    weights = np.zeros((n, len(coalitions)))
    for order, at in zip(orders, position, strict=True):
        for step, player in enumerate(order):
            weights[player, at[step + 1]] += 1 / len(orders)
            weights[player, at[step]] -= 1 / len(orders)
    return Design(coalitions, weights, empty=int(position[0, 0]), full=int(position[0, n]))


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = np.clip(probabilities, EDGE, 1 - EDGE)
    return np.log(inside) - np.log1p(-inside)


def _missing_as_none(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _said(value: Any) -> str:
    """A value as a person would say it: three digits, and no decimals that say nothing."""
    value = _missing_as_none(value)
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
