"""What a rollout rule is: a small object that looks at evidence and gives one of three answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rollout.evidence import Evidence

Answer = Literal["advance", "roll_back", "not_yet"]


@dataclass(frozen=True)
class Verdict:
    rule: str
    answer: Answer
    """`not_yet` also where there is no evidence: no data is not a failure."""
    reason: str
    """One line for a person, with the numbers in it."""
    numbers: Mapping[str, float] = field(default_factory=dict)


class Rule(Protocol):
    """Its constructor refuses settings that make no sense (ValueError, naming the field).

    `roll_back`: harm beyond the tolerance is certain, by an always-valid test: an e-value of 1/alpha or more.
    `advance`: the rule has the data that it needs, in the present window too, and its e-value is below
    1/alpha. How much traffic a stage needs is not the rule's to say: Stage.min_requests is.
    `not_yet`: data that will come is not there yet, or holds NaN or nonsense. Never on suspicion: a stage
    that timed out on it would break the promise of alpha.
    Data that may never come does not block: a rule about labels or segments answers `advance` with the reason
    "no labels yet" or "no segments" until it has some. A stage may go on when no answer is `not_yet`.
    """

    name: str

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        """`alpha`: the probability that this rule may ever, over all looks of a rollout, ask to roll back a
        canary that is no worse than the rule tolerates."""
