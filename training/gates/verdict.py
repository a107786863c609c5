"""What a rule is shown, and what it answers. Standard library only: a report can be read anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Self


@dataclass(frozen=True)
class Evidence:
    """What is known of a model on trial. What could not be found out is absent or NaN, and in `problems`."""

    program_sha256: str
    rows: int = 0
    """Test rows that the scores are of."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the exported program's scores (training/metrics.py)."""
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    expected_baselines: tuple[str, ...] = ()
    """Those that the configuration asks for, whether they were found or not."""
    program_difference: float = nan
    """Largest distance between the exported program's scores and the checkpoint's, over the test rows."""
    single_feature_auroc: Mapping[str, float] = field(default_factory=dict)
    """AUROC on the test rows of a model that sees one feature only."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One number against its bound."""

    rule: str
    passed: bool
    value: float
    bound: float
    reason: str

    @classmethod
    def at_least(cls, rule: str, what: str, value: float, bound: float) -> Self:
        return cls._compared(rule, what, value, bound, value >= bound, ("is at least", "is below"))

    @classmethod
    def at_most(cls, rule: str, what: str, value: float, bound: float) -> Self:
        return cls._compared(rule, what, value, bound, value <= bound, ("is at most", "is above"))

    @classmethod
    def below(cls, rule: str, what: str, value: float, bound: float) -> Self:
        return cls._compared(rule, what, value, bound, value < bound, ("is below", "is not below"))

    @classmethod
    def _compared(
        cls, rule: str, what: str, value: float, bound: float, holds: bool, words: tuple[str, str]
    ) -> Self:
        """Closed by construction: a number that is missing or not finite has not passed."""
        if not isfinite(value) or not isfinite(bound):
            culprit = what if not isfinite(value) else f"the bound of {what}"
            return cls(rule, False, value, bound, f"{culprit} is missing or not a number")
        return cls(rule, holds, value, bound, f"{what} {value:.4g} {words[0 if holds else 1]} {bound:.4g}")


def number(found: Mapping[str, object], key: str) -> float:
    """`found[key]`, or NaN where it is missing or no number."""
    value = found.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
