"""The policy that this project runs, on the loss matrix: the governor of retraining/ with evidence of labels.

The governor is given the findings of one check at each moment, harm on matured labels, and a schedule: the
period at which trainings cost least, by the ageing that was measured until then (retraining/tempo.py).
"""

import sys
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np

from monitoring.change import evidence_of_change
from monitoring.early_labels import log_e_of_loss
from monitoring.findings import Cause, Finding, Severity
from replay.costs import Costs
from replay.past import Past
from retraining.config import Ageing, RetrainConfig
from retraining.decision import Aged, Attempt, Evidence, Labels, Outcome, State, Window
from retraining.governor import decide


@dataclass(frozen=True)
class Settings:
    """What was chosen on made histories (replay/made.py), together with the defaults of
    retraining.config.Ageing, and not changed for the logs that are judged."""

    alpha: float = 0.01
    """The largest probability of ever reporting harm on a history without any beyond the margin."""
    payback_steps: int = 12
    """Harm is reported above a margin: what would not pay for a training within so many steps."""


@dataclass
class Governed:
    """`retrain` is the configured policy; its schedule is replaced by the best period."""

    costs: Costs
    settings: Settings = field(default_factory=Settings)
    retrain: RetrainConfig = field(default_factory=RetrainConfig)
    name: str = "ours"
    alarms: list[int] = field(default_factory=list)
    """Moments at which harm was reported, for the report."""
    _computed: dict[tuple[int, int, float], float] = field(default_factory=dict, repr=False)

    def trains(self, past: Past) -> bool:
        moments = past.matrix.moments
        now, step = moments[past.now], moments[1] - moments[0]
        customers = float(past.matrix.rows[past.now])
        price = self.costs.model / (self.costs.value * customers) if self.costs.value else np.inf
        days = step / timedelta(days=1)
        ageing = Ageing(step_days=days, value=self.costs.value or sys.float_info.min, cost=self.costs.model)
        triggers = self.retrain.triggers.model_copy(update={"schedule_days": None, "ageing": ageing})
        budget = self.retrain.budget.model_copy(update={"days": min(self.retrain.budget.days, step.days)})
        policy = self.retrain.model_copy(update={"triggers": triggers, "budget": budget})
        champion = moments[past.champion]
        attempts = tuple(
            Attempt(str(moment), moments[moment], moments[moment], Outcome.ROLLED_OUT, moments[moment])
            for moment in past.trained
        )
        version = str(past.champion)
        findings = self._harm(past, price / self.settings.payback_steps)
        if findings:
            self.alarms.append(past.now)
        window = Window(now, moments[past.now - 1], version, findings)
        labels = Labels(matured=10**9, new=10**9, customers=round(customers))
        state = State(version, champion, attempts)
        return decide(
            policy, state, Evidence("replay", [window], labels, ageing=self._aged(past, days)), now
        ).granted

    def _aged(self, past: Past, days: float) -> list[Aged]:
        """Of all models that were fitted for comparison."""
        ages, at, differences = past.ageing()
        return [
            Aged(past.matrix.moments[moment], age * days, float(nats))
            for age, moment, nats in zip(ages, at, differences, strict=True)
        ]

    def _harm(self, past: Past, margin: float) -> list[Finding]:
        """Labels of neighbouring moments overlap, so moments that are a horizon apart form a sequence of
        their own, and each of these has an equal share of alpha."""
        since = past.champion + 1
        known = [at for at in past.matured if at >= since and past.serving[at] == past.champion]
        lag = max(past.matrix.label_lag, 1)
        evidence = -np.inf
        for first in range(lag):
            logs = [self._log_e(past, at, margin) for at in known if at % lag == first]
            if logs:
                evidence = max(evidence, float(evidence_of_change(logs)[-1]))
        if evidence < np.log(lag / self.settings.alpha):
            return []
        lost = float(np.mean([past.avoidable(at).mean() for at in known]))
        message = f"a fresh model would lose {lost:.4f} nats less a customer"
        numbers = {"avoidable_nats": lost, "log_evidence": evidence}
        return [Finding("avoidable_loss", "all", Cause.HARM, Severity.PAGE, message, numbers)]

    def _log_e(self, past: Past, at: int, margin: float) -> float:
        """`log_e_of_loss` of a moment, computed once for each model that served and margin."""
        key = (int(past.serving[at]), at, margin)
        if key not in self._computed:
            self._computed[key] = log_e_of_loss(past.avoidable(at), margin)
        return self._computed[key]
