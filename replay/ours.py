"""The policy of this project in a replay of the whole loop: the governor, with the evidence of the signals.

The schedule is the period at which trainings cost least by the ageing that was measured (replay/tempo.py), as
on the loss matrix (replay/governed.py), with the same settings.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from monitoring.change import evidence_of_change
from monitoring.early_labels import log_e_of_loss
from monitoring.findings import Cause, Finding, Severity
from replay.config import Prices
from replay.governed import Settings
from replay.situation import Choice, Situation
from replay.tempo import ageing, best_period
from retraining.config import RetrainConfig
from retraining.decision import Action, Evidence, Labels, State, Window
from retraining.governor import decide


@dataclass
class Ours:
    """Remembers its checks and measurements, as the database does in production."""

    retrain: RetrainConfig
    prices: Prices
    step_days: float
    settings: Settings = field(default_factory=Settings)
    windows: list[Window] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    early: dict[str, list[float]] = field(default_factory=dict)
    labels_at_training: int = 0
    last_matured: datetime | None = None

    def __call__(self, situation: Situation) -> Choice:
        signals, champion = situation.signals, situation.champion
        customers, value = max(situation.customers, 1), self.prices.value
        price = (self.prices.training + self.prices.rollout) / (value * customers) if value else np.inf
        findings = self._harm(situation, price / self.settings.payback_steps)
        since = self.windows[-1].at if self.windows else situation.served_since
        self.windows.append(Window(signals.at, since, champion.program, findings))
        period = self._period(price)
        days = None if period is None else (period - 0.5) * self.step_days
        triggers = self.retrain.triggers.model_copy(update={"schedule_days": days})
        policy = self.retrain.model_copy(update={"triggers": triggers})
        labels = Labels(signals.labels, signals.labels - self.labels_at_training)
        state = State(champion.program, champion.trained, situation.attempts)
        windows = self.windows[-policy.checks_read :]
        decision = decide(policy, state, Evidence("replay", windows, labels), signals.at)
        if decision.action is Action.YES:
            self.labels_at_training = signals.labels
        return Choice(decision.granted, decision.reason, decision.numbers)

    def _harm(self, situation: Situation, margin: float) -> list[Finding]:
        """On early labels of the champion, and on the newest outcomes of a model that served."""
        signals, version = situation.signals, situation.champion.program
        if signals.avoidable is not None and signals.matured != self.last_matured:
            self.last_matured = signals.matured
            self._measure(situation)
        found = []
        if signals.early_log_e is not None:
            self.early.setdefault(version, []).append(signals.early_log_e)
            evidence = float(evidence_of_change(self.early[version])[-1])
            if evidence >= np.log(1 / self.settings.alpha):
                message = f"a fresh model would avoid {signals.early_avoidable:.4f} nats a customer"
                found.append(_finding("early_avoidable_loss", message, evidence))
        if signals.avoidable is not None and signals.matured_program == version:
            evidence = log_e_of_loss(signals.avoidable, margin)
            checks = len(self.differences)
            if evidence >= np.log(checks * (checks + 1) / self.settings.alpha):
                message = f"a fresh model loses {signals.avoidable_nats:.4f} nats less a customer"
                found.append(_finding("avoidable_loss", message, evidence))
        return found

    def _measure(self, situation: Situation) -> None:
        signals = situation.signals
        if signals.matured is None or signals.avoidable_nats is None or signals.matured_trained is None:
            return
        age = (signals.matured - signals.matured_trained) / timedelta(days=self.step_days)
        self.ages.append(round(age))
        self.differences.append(signals.avoidable_nats)

    def _period(self, price: float) -> int | None:
        ages, differences = np.array(self.ages, np.int64), np.array(self.differences, np.float64)
        weights = 0.5 ** (np.arange(len(ages))[::-1] / self.settings.half_life_steps)
        curve = ageing(ages, differences, weights, self.settings.ageing_nats, self.settings.ageing_weight)
        return best_period(curve, price, self.settings.longest_steps)


def _finding(check: str, message: str, evidence: float) -> Finding:
    return Finding(check, "all", Cause.HARM, Severity.PAGE, message, {"log_evidence": evidence})
