"""The interface of a rule: a config whose fields are the rule's arguments, with one method."""

from abc import abstractmethod

from core.config import Config
from training.gates.evidence import Evidence
from training.gates.verdict import Verdict


class Rule(Config):
    """A condition on the evidence; its fields are the arguments in `configs/gates.yaml`."""

    @abstractmethod
    def judge(self, evidence: Evidence) -> list[Verdict]:
        """A verdict for each number, at least one. Missing or NaN evidence gives a failed verdict."""
