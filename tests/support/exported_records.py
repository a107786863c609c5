"""A database of rollouts with something of everything that the exporter reads."""

from datetime import UTC, datetime, timedelta

from monitoring.findings import Cause, Checked, Finding, Measurement, Monitored, Severity
from monitoring.stored import MonitorStore
from retraining.config import RetrainConfig
from retraining.decision import Outcome
from retraining.ledger import Grade, Ledger
from rollout.config import RolloutConfig
from rollout.database.fencing import Fence
from rollout.database.projections import Projection
from rollout.state import Change
from rollout.store import Store
from support.file_target import NEW, OLD
from support.retraining_situations import HARM, VERSION, day, evidence, window

NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
FINDINGS = (
    Finding("unit_change", "amount", Cause.CORRUPTION, Severity.PAGE, "x100"),
    Finding("drift", "spend_90d", Cause.DRIFT, Severity.TICKET, "moved"),
)
LOSS = Measurement("log_loss_nats", 0.41, 300, "all", "v1", 0.35, 0.47)


def monitored(at: datetime, *findings: Finding, measurements: tuple[Measurement, ...] = (LOSS,)) -> Monitored:
    """A run of the monitor for the fortnight before `at`."""
    checked = Checked(measurements, findings)
    return Monitored("churn", at, at - timedelta(days=14), "v1", checked, "d" * 64)


def fill(uri: str, plan: RolloutConfig, monitors: bool = True) -> None:
    """A rollout, three retrainings of which one runs, grades, and with `monitors` a run of the monitor."""
    if monitors:
        MonitorStore(uri).save(monitored(NOW, *FINDINGS), NOW)
    ledger, policy = Ledger(uri), RetrainConfig()
    for at, outcome in ((40, Outcome.FAILED), (60, Outcome.REFUSED), (80, None)):
        state = ledger.state("churn", VERSION, day(0))
        entry = ledger.decide(policy, state, evidence(window(at, HARM)), day(at), "cron")
        run = ledger.active("churn")
        if run is not None and outcome is not None:
            fence = Fence("churn", run.id, ledger.take_token("churn", "test", day(at), 10))
            ledger.end(fence, outcome, "", day(at + 1))
            ledger.release_token(fence, day(at + 1))
            ledger.save_grade(Grade(entry.number, day(at + 1), "right", "by its labels", {}))
    # afterwards, because a rollout forbids a training
    store = Store(uri)
    store.start("churn", Change(NEW, OLD, "ada", NOW, "march"), plan)
    store.save_projection("churn", Projection("registry", True, "", NOW))
