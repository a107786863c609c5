"""The interface of a rule: an object that gives one of three answers to evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rollout.evidence import Evidence

Answer = Literal["advance", "roll_back", "not_yet"]


@dataclass(frozen=True)
class Verdict:
    rule: str
    answer: Answer
    """`not_yet` also without evidence: missing data are not a failure."""
    reason: str
    """One line of text with the numbers."""
    numbers: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """Three answers:

    - `roll_back`: an always-valid test rejects that the harm is within the tolerance: an e-value of at least
      1/alpha.
    - `advance`: the rule has the data that it needs, in the present window too, and its e-value is below
      1/alpha. How much traffic a stage needs is set by Stage.min_requests, not by a rule.
    - `not_yet`: data that will come are missing, contain NaN or are impossible. A rule never answers so on
      suspicion: a stage that timed out for it would roll back with a probability above alpha.

    Data that may never come do not block: a rule about labels or segments answers `advance` with the reason
    "no labels yet" or "no segments" until it has some. A stage may end when no answer is `not_yet`.
    """

    name: str

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        """`alpha`: the probability with which this rule may answer `roll_back`, over all looks of a rollout,
        for a canary whose harm is within the tolerance."""
