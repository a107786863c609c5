"""The policy of this project in a replay: `churn monitor` and the governor of `churn retrain` as they run in
production, with their rows in the database of the replay.
"""

from dataclasses import dataclass
from datetime import timedelta

from pipelines.context import Context
from pipelines.monitor import monitor
from pipelines.retraining.evidence import read_evidence
from replay.situation import Choice, Situation
from retraining.decision import Outcome
from retraining.ledger import Ledger
from rollout.database.fencing import Fence

WHO = "replay"
AFTER = timedelta(seconds=1)
"""The monitor runs when the customers of the moment have been served."""


@dataclass(frozen=True)
class Ours:
    """Its schedule, vetoes, cooldown and budget are those of the settings (section `retrain`)."""

    def decide(self, situation: Situation) -> Choice:
        """One run of the monitor, then the decision of the governor, which both are recorded."""
        context = situation.context
        at = context.as_of + AFTER
        monitor(context, at)
        settings, ledger = context.settings, _ledger(context)
        state, evidence = read_evidence(settings, ledger, at)
        decision = ledger.decide(settings.retrain, state, evidence, at, WHO).decision
        return Choice(decision.granted, decision.reason, decision.numbers)

    def trained(self, context: Context, outcome: Outcome, detail: str) -> None:
        """End the run that was granted; the first training of a replay is none."""
        ledger, now = _ledger(context), context.now()
        run = ledger.active(context.settings.serving.model_name)
        if run is None:
            return
        token = ledger.take_token(run.model, WHO, now, context.settings.retrain.lease_s)
        fence = Fence(run.model, run.id, token)
        ledger.end(fence, outcome, detail, now)
        ledger.release_token(fence, now)


def _ledger(context: Context) -> Ledger:
    return Ledger(context.settings.rollout.database)
