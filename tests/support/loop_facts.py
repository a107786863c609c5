"""A busy year of the loop for its page: written to a real database and read as `churn report` reads it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monitoring.findings import Checked, Finding, Measurement, Monitored, Severity
from monitoring.stored import MonitorStore
from pipelines.report.facts import Customers, Facts, Refused
from retraining.config import RetrainConfig
from retraining.decision import Outcome
from retraining.ledger import Grade, Ledger
from rollout.database.fencing import Fence
from rollout.database.projections import Projection
from rollout.state import Change
from rollout.store import Store
from rollout.targets.target import Candidate
from support.retraining_situations import CORRUPT, DRIFT, HARM, VERSION, day, evidence, window
from training.registry.model_registry import Decision, Version

HOSTILE = "</td><script>alert(1)</script><b onclick='x()'> & \"quoted\""
MANIFEST = {
    "rows": 69_659,
    "customers": 23_570,
    "newest": "2026-11-30T00:00:00+00:00",
    "window": {"start": "2026-01-01T00:00:00+00:00", "end": "2026-12-01T00:00:00+00:00"},
    "source": {"uri": "orders.csv"},
    "input_sha256": "a" * 64,
    "output_sha256": "b" * 64,
    "code_version": "1.0.0+0123456789ab",
}
METRICS = {
    "log_loss": 0.4252, "auroc": 0.7993, "auprc": 0.9197, "accuracy": 0.8112, "precision": 0.7433,
    "recall": 0.654, "f1": 0.6768, "brier": 0.1353, "ece": 0.0069,
}  # fmt: skip
CHECKS = {2: (), 4: (DRIFT,), 6: (DRIFT, HARM), 8: (HARM, CORRUPT), 10: (DRIFT,), 12: ()}


def loop_facts(folder: Path) -> Facts:
    """Six checks, decisions of each kind with grades, canaries, models, and customers to call."""
    uri = f"sqlite:///{folder}/rollout.db"
    monitored = _checks(MonitorStore(uri))
    ledger = _ledger(uri)
    store = Store(uri)
    first, second = (Candidate(f"/m/{v}.mar", v[:1] * 64, v) for v in ("aaaa11112222", "bbbb11112222"))
    store.served_at_once("churn", Change(first, None, "ada", day(1), "served first"))
    store.served_at_once("churn", Change(second, first, "ada", day(61), HOSTILE))
    store.save_projection("churn", Projection("registry", False, "registry has another champion", day(62)))
    return Facts(
        model="churn",
        manifest=MANIFEST,
        training={"metrics": METRICS, "baselines": {"base_rate": {**METRICS, "auroc": None}}},
        gates=_gates(),
        scores=_scores(),
        versions=[_version("2", "bbbb11112222"), _version("1", "aaaa11112222")],
        aliases={"champion": "2", "previous": "1"},
        registry=[_challenge(1, 1), _challenge(2, 60)],
        refused=[Refused("f" * 32, day(45), "auroc, worst_segment")],
        stable=second.version,
        rollouts=[(one, store.history(one.id)) for one in store.all("churn")],
        projections=store.projections("churn"),
        monitored=monitored,
        decisions=ledger.entries("churn"),
        grades=ledger.grades("churn"),
        runs=ledger.runs("churn"),
        customers=Customers(day(90), 8_332, second.version, [_customer(rank) for rank in range(1, 21)]),
        unread=["source of nothing: cannot be reached; start it"],
    )


def _checks(store: MonitorStore) -> list[Monitored]:
    for week, findings in CHECKS.items():
        loss = 0.42 + week / 100
        measured = (
            Measurement("log_loss_nats", loss, 900, "all", VERSION, loss - 0.02, loss + 0.02),
            Measurement("psi", week / 50, 900, "spend_90d"),
            Measurement("auroc", float("nan"), 3, "country=DE", VERSION),
        )
        more = (replace(DRIFT, check="nulls", subject=HOSTILE, message=HOSTILE, severity=Severity.DIGEST),)
        found: tuple[Finding, ...] = findings + more if findings else ()
        at = day(7 * week)
        run = Monitored("churn", at, at - timedelta(days=7), VERSION, Checked(measured, found), "c" * 64)
        store.save(run, at)
    return store.runs("churn")


def _ledger(uri: str) -> Ledger:
    ledger = Ledger(uri)
    seen = []
    for week, findings in CHECKS.items():
        seen.append(window(7 * week, *findings))
        state = ledger.state("churn", VERSION, day(0))
        entry = ledger.decide(RetrainConfig(), state, evidence(*seen[-4:]), day(7 * week), "cron")
        if entry.decision.granted and entry.is_new:
            run = ledger.active("churn")
            assert run is not None
            fence = Fence("churn", run.id, ledger.take_token("churn", "test", day(7 * week), 10))
            ledger.end(fence, Outcome.REFUSED, "", day(7 * week + 1))
            ledger.release_token(fence, day(7 * week + 1))
    for entry in ledger.entries("churn")[:2]:
        grade = "right" if entry.number % 2 else "wrong"
        ledger.save_grade(Grade(entry.number, day(200), grade, HOSTILE, {}))
    return ledger


def _gates() -> dict[str, Any]:
    return {
        "passed": True,
        "profile": "default",
        "program_sha256": "d" * 64,
        "verdicts": [
            {"rule": "auroc", "passed": True, "reason": "0.7993 is at least 0.75"},
            {"rule": "worst_segment", "passed": False, "reason": HOSTILE},
        ],
        "overrides": [{"rule": "worst_segment", "who": "ada", "when": "2026-03-01", "reason": "new market"}],
    }


def _scores() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    score = draws.beta(2, 3, 2000)
    return pd.DataFrame({"churned": (draws.random(2000) < score).astype(int), "score": score})


def _version(number: str, model: str) -> Version:
    tags = {"gates": "passed", "model_version": model, "archive_sha256": model[:1] * 64, "git_sha": "e" * 40}
    return Version(number, "r" * 32, "mlflow-artifacts:/x", tags)


def _challenge(number: int, at: float) -> Decision:
    when = day(at).isoformat()
    numbers = {"log_loss": 0.42, "auroc": 0.8, "ece": 0.01}
    return Decision(number, "challenge", str(number), "ada", when, HOSTILE, {}, {}, numbers, applied=True)


def _customer(rank: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "user_id": f"u_{rank:032x}",
        "churn_probability": 0.9 - rank / 100,
        "expected_value": 200.0 - rank,
        "reason_1": "days since the last purchase: 115 (usually 40) raises the risk",
        "reason_2": "purchases so far: 1 (usually 4) raises the risk",
        "reason_3": None,
    }
