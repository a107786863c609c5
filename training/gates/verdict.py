"""The result of a rule. Imports the standard library only, so that a report can be read anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Self


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
        """Passes if `value` is finite and not below `bound`."""
        return cls._compared(rule, what, value, bound, value >= bound, ("is at least", "is below"))

    @classmethod
    def at_most(cls, rule: str, what: str, value: float, bound: float) -> Self:
        """Passes if `value` is finite and not above `bound`."""
        return cls._compared(rule, what, value, bound, value <= bound, ("is at most", "is above"))

    @classmethod
    def unjudged(cls, rule: str, reason: str) -> Self:
        """Fails because the number is missing."""
        return cls(rule, False, nan, nan, reason)

    @classmethod
    def not_required(cls, rule: str, reason: str) -> Self:
        """Passes because nothing is configured to compare with; the reason is part of the report."""
        return cls(rule, True, nan, nan, reason)

    @classmethod
    def _compared(
        cls, rule: str, what: str, value: float, bound: float, holds: bool, words: tuple[str, str]
    ) -> Self:
        """Fail-closed: a number that is missing or not finite has not passed."""
        if not isfinite(value) or not isfinite(bound):
            culprit = what if not isfinite(value) else f"the bound of {what}"
            return cls(rule, False, value, bound, f"{culprit} is missing or not a number")
        return cls(rule, holds, value, bound, f"{what} {value:.4g} {words[0 if holds else 1]} {bound:.4g}")


def number(found: Mapping[str, object], key: str) -> float:
    """`found[key]`, or NaN if it is missing or not a number."""
    value = found.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
