"""The shape of a rule: its arguments are its fields, checked like any configuration; one method answers."""

from abc import abstractmethod

from data.config import Config
from training.gates.evidence import Evidence
from training.gates.verdict import Verdict


class Rule(Config):
    @abstractmethod
    def judge(self, evidence: Evidence) -> list[Verdict]:
        """One verdict a number, at least one. Missing or NaN evidence is a verdict that did not pass."""
