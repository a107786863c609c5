"""From evidence to one of three answers, the same way for every rule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rollout.rules.rule import Verdict

LARGEST = 690.0
"""exp of it is still a float."""


@dataclass(frozen=True)
class Found:
    """What a rule has found out."""

    log_e: float
    """Log e-value of harm beyond the tolerance."""
    said: str
    """The numbers as a person reads them."""
    waiting: str | None = None
    """What is not there yet."""
    numbers: Mapping[str, float] = field(default_factory=dict)


def answer(rule: str, found: Found, alpha: float) -> Verdict:
    """Harm that is certain comes first: it does not wait for more data. NaN is never a yes."""
    needed = 1 / alpha
    e_value = math.exp(min(found.log_e, LARGEST))
    every = {**found.numbers, "e_value": e_value, "needed": needed}
    numbers = {name: number for name, number in every.items() if math.isfinite(number)}  # JSON has no NaN
    if math.isnan(e_value):
        return Verdict(rule, "not_yet", f"the evidence is not a number: {found.said}", numbers)
    if e_value >= needed:
        odds = f"evidence {e_value:.3g} to 1, {needed:.3g} needed"
        return Verdict(rule, "roll_back", f"{found.said}: {odds}", numbers)
    if found.waiting:
        return Verdict(rule, "not_yet", found.waiting, numbers)
    if len(numbers) < len(every):
        return Verdict(rule, "not_yet", f"not a number: {found.said}", numbers)
    return Verdict(rule, "advance", found.said, numbers)


def unreadable(rule: str, problem: str) -> Verdict:
    """Evidence that no number should be made of."""
    return Verdict(rule, "not_yet", f"evidence is damaged: {problem}")
