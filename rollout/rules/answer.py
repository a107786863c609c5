"""The answer that follows from a rule's e-value; the same for all rules."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rollout.rules.rule import Verdict

LARGEST = 690.0
"""The exponential of this is still a finite float."""


@dataclass(frozen=True)
class Found:
    """The result of a rule, before it is compared with alpha."""

    log_e: float
    """Log e-value of harm beyond the tolerance."""
    summary: str
    """The numbers as text."""
    waiting: str | None = None
    """Which data are missing; None: enough are there."""
    numbers: Mapping[str, float] = field(default_factory=dict)


def answer(rule: str, found: Found, alpha: float) -> Verdict:
    """Harm is reported first, without waiting for more data. With NaN the answer is never `advance`."""
    needed = 1 / alpha
    e_value = math.exp(min(found.log_e, LARGEST))
    every = {**found.numbers, "e_value": e_value, "needed": needed}
    numbers = {name: number for name, number in every.items() if math.isfinite(number)}  # JSON has no NaN
    if math.isnan(e_value):
        return Verdict(rule, "not_yet", f"the evidence is not a number: {found.summary}", numbers)
    if e_value >= needed:
        odds = f"evidence {e_value:.3g} to 1, {needed:.3g} needed"
        return Verdict(rule, "roll_back", f"{found.summary}: {odds}", numbers)
    if found.waiting:
        return Verdict(rule, "not_yet", found.waiting, numbers)
    if len(numbers) < len(every):
        return Verdict(rule, "not_yet", f"not a number: {found.summary}", numbers)
    return Verdict(rule, "advance", found.summary, numbers)


def unreadable(rule: str, problem: str) -> Verdict:
    """The verdict on damaged evidence."""
    return Verdict(rule, "not_yet", f"evidence is damaged: {problem}")
