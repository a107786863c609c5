"""From a finding to a person and to the governor, with Debian's Prometheus and Alertmanager.

One finding is one page, which resolves, and one retraining, although messages are sent again, and receivers
and Alertmanager are restarted in between.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from monitoring.exporter import Exporter, export, exporting
from monitoring.findings import Cause, Checked, Finding, Monitored, Severity
from monitoring.stored import MonitorStore
from pipelines.retraining.webhook import Webhook
from retraining.config import RetrainConfig
from retraining.decision import Evidence, Labels, Trigger, Window
from retraining.ledger import Ledger
from support.alert_rules import RULES
from support.servers.real_alertmanager import (
    RETRAIN_TOKEN,
    Alertmanager,
    Receivers,
    alertmanager,
    needs_alertmanager,
    receiving,
)
from support.servers.real_prometheus import needs_prometheus, running
from support.waits import free_port, within

pytestmark = [pytest.mark.slow, needs_prometheus, needs_alertmanager]
HARM = Finding("avoidable_loss", "all", Cause.HARM, Severity.PAGE, "a fresh model loses .03 nats less")
CORRUPT = Finding("unit_change", "amount", Cause.CORRUPTION, Severity.PAGE, "100 times larger")
DRIFT = Finding("distribution", "recency", Cause.DRIFT, Severity.TICKET, "moved")
START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLED_S = 6
"""Longer than scrape, evaluation and two groups together."""


class Governor:
    """`churn retrain listen` without the training itself: a run that is granted stays begun in the ledger."""

    def __init__(self, database: str) -> None:
        self.ledger, self.runs, self.woken = Ledger(database), MonitorStore(database), 0
        self._port = free_port()
        self._webhook: Webhook | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/wake"

    def start(self) -> None:
        self._webhook = Webhook("127.0.0.1", self._port, RETRAIN_TOKEN, self._wake, str)
        self._webhook.__enter__()

    def stop(self) -> None:
        if self._webhook is not None:
            self._webhook.__exit__(None, None, None)

    def _wake(self) -> str:
        self.woken += 1
        policy, runs = RetrainConfig(), self.runs.runs("churn")
        found = Evidence("churn", tuple(map(Window.of, runs[-policy.checks_read :])), Labels(5000, 500))
        now = runs[-1].at + timedelta(hours=1)
        state = self.ledger.state("churn", "v1", START)
        return self.ledger.decide(policy, state, found, now, "webhook").decision.reason


@dataclass
class Paging:
    runs: MonitorStore
    governor: Governor
    alertmanager: Alertmanager
    receivers: Receivers
    number: int = 0

    def monitor(self, *findings: Finding) -> None:
        """A run of the monitor with these findings, a fortnight after the one before."""
        self.number += 1
        at = START + timedelta(days=14 * self.number)
        run = Monitored("churn", at, at - timedelta(days=14), "v1", Checked((), findings), "d" * 64)
        self.runs.save(run, datetime.now(UTC))


@contextmanager
def paging(folder: Path) -> Iterator[Paging]:
    database = f"sqlite:///{folder}/rollout.db"
    runs, exporter = MonitorStore(database), Exporter(database, "churn", 14 * 86_400.0)
    over, governor = threading.Event(), Governor(database)
    governor.start()
    reading = threading.Thread(target=export, args=(exporter, over, 0.2, lambda: datetime.now(UTC)))
    reading.start()
    try:
        with (
            exporting(exporter, "127.0.0.1:0") as url,
            receiving() as receivers,
            alertmanager(folder / "alertmanager", receivers, governor.url) as manager,
            running(
                folder / "prometheus",
                [{"job_name": "churn-monitor", "static_configs": [{"targets": [url.split("/")[2]]}]}],
                more={
                    "rule_files": [str(RULES / "monitoring.yml")],
                    "alerting": {
                        "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager.port}"]}]}]
                    },
                },
                flags=["--rules.alert.resend-delay=1s"],
            ),
        ):
            yield Paging(runs, governor, manager, receivers)
    finally:
        governor.stop()
        over.set()
        reading.join()


def test_a_finding_becomes_one_page_which_resolves_whatever_restarts(tmp_path: Path) -> None:
    with paging(tmp_path) as there:
        receivers = there.receivers
        there.monitor()
        receivers.stop()  # away when the page is due
        there.monitor(HARM)
        within(30, lambda: "ChurnModelHarm" in there.alertmanager.firing())
        time.sleep(SETTLED_S)
        receivers.refusing = True  # back, and not able to accept
        receivers.start()
        within(60, lambda: receivers.refused)
        receivers.refusing = False
        there.governor.stop()
        within(60, lambda: receivers.pages and receivers.slack, lambda: receivers.messages)
        there.alertmanager.restart()
        there.governor.start()
        time.sleep(SETTLED_S)
        there.monitor(HARM)  # the next run finds it again
        there.alertmanager.restart(away_s=3)
        time.sleep(SETTLED_S)
        (page,) = receivers.pages
        assert page[0] == "trigger"
        assert receivers.slack == ["ChurnModelHarm (churn)"]
        assert there.governor.woken > 2, "wake-ups are sent again: the governor reads the database at each"
        assert len(there.governor.ledger.runs("churn")) == 1

        there.monitor()  # another model serves, and nothing is lost any more
        within(30, lambda: ("resolve", page[1]) in receivers.pages)
        within(30, lambda: len(receivers.slack) == 2)
        there.alertmanager.restart()
        time.sleep(SETTLED_S)
        assert receivers.pages == [page, ("resolve", page[1])], "one incident, closed once"
        assert receivers.slack == ["ChurnModelHarm (churn)", "Resolved: ChurnModelHarm (churn)"]
        (run,) = there.governor.ledger.runs("churn")
        entries = {entry.number: entry for entry in there.governor.ledger.entries("churn")}
        assert entries[run.decision].decision.trigger is Trigger.PERFORMANCE
        text = receivers.at("/slack")[0]["attachments"][0]["text"]
        assert "another model would lose less" in text and "/docs/runbooks/ChurnModelHarm.md" in text


def test_a_fault_suppresses_its_symptoms_and_wakes_nothing(tmp_path: Path) -> None:
    with paging(tmp_path) as there:
        there.monitor(CORRUPT, HARM, DRIFT)
        within(30, lambda: len(there.alertmanager.firing()) == 3)
        within(30, lambda: there.receivers.pages)
        time.sleep(SETTLED_S)
        assert there.receivers.slack == ["ChurnDataCorrupted (churn)"]
        assert [action for action, _ in there.receivers.pages] == ["trigger"]
        assert there.governor.woken == 0, "wrong data are no reason to train"


def test_drift_alone_is_a_ticket_and_no_page(tmp_path: Path) -> None:
    with paging(tmp_path) as there:
        there.monitor(DRIFT)
        within(30, lambda: there.receivers.slack)
        assert there.receivers.at("/slack")[0]["channel"] == "#churn-tickets"
        assert there.receivers.pages == []
        within(30, lambda: there.governor.woken)
        assert there.governor.ledger.runs("churn") == [], "drift in one check is no reason to train"
