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
from support.alert_rules import RULES
from support.servers.real_alertmanager import (
    Alertmanager,
    Receivers,
    alertmanager,
    needs_alertmanager,
    receiving,
)
from support.servers.real_prometheus import needs_prometheus, running
from support.waits import within

pytestmark = [pytest.mark.slow, needs_prometheus, needs_alertmanager]
HARM = Finding("avoidable_loss", "all", Cause.HARM, Severity.PAGE, "a fresh model loses .03 nats less")
CORRUPT = Finding("unit_change", "amount", Cause.CORRUPTION, Severity.PAGE, "100 times larger")
DRIFT = Finding("distribution", "recency", Cause.DRIFT, Severity.TICKET, "moved")
SETTLED_S = 6
"""Longer than scrape, evaluation and two groups together."""


@dataclass
class Paging:
    runs: MonitorStore
    alertmanager: Alertmanager
    receivers: Receivers
    number: int = 0

    def monitor(self, *findings: Finding) -> None:
        """A run of the monitor with these findings, a fortnight after the one before."""
        self.number += 1
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=14 * self.number)
        run = Monitored("churn", at, at - timedelta(days=14), "v1", Checked((), findings), "d" * 64)
        self.runs.save(run, datetime.now(UTC))


@contextmanager
def paging(folder: Path) -> Iterator[Paging]:
    database = f"sqlite:///{folder}/rollout.db"
    runs, exporter, over = (
        MonitorStore(database),
        Exporter(database, "churn", 14 * 86_400.0),
        threading.Event(),
    )
    reading = threading.Thread(target=export, args=(exporter, over, 0.2, lambda: datetime.now(UTC)))
    reading.start()
    try:
        with (
            exporting(exporter, "127.0.0.1:0") as url,
            receiving() as receivers,
            alertmanager(folder / "alertmanager", receivers) as manager,
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
            yield Paging(runs, manager, receivers)
    finally:
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
        within(60, lambda: receivers.pages and receivers.slack, lambda: receivers.messages)
        there.alertmanager.restart()
        time.sleep(SETTLED_S)
        there.monitor(HARM)  # the next run finds it again
        there.alertmanager.restart(away_s=3)
        time.sleep(SETTLED_S)
        (page,) = receivers.pages
        assert page[0] == "trigger"
        assert receivers.slack == ["ChurnModelHarm (churn)"]
        wakes = receivers.at("/wake")
        assert len(wakes) > 2, "wake-ups are sent again: the governor reads the database at each"
        assert {alert["labels"]["alertname"] for wake in wakes for alert in wake["alerts"]} == {
            "ChurnModelHarm"
        }

        there.monitor()  # another model serves, and nothing is lost any more
        within(30, lambda: ("resolve", page[1]) in receivers.pages)
        within(30, lambda: len(receivers.slack) == 2)
        there.alertmanager.restart()
        time.sleep(SETTLED_S)
        assert receivers.pages == [page, ("resolve", page[1])], "one incident, closed once"
        assert receivers.slack == ["ChurnModelHarm (churn)", "Resolved: ChurnModelHarm (churn)"]
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
        assert there.receivers.at("/wake") == [], "wrong data are no reason to train"


def test_drift_alone_is_a_ticket_and_no_page(tmp_path: Path) -> None:
    with paging(tmp_path) as there:
        there.monitor(DRIFT)
        within(30, lambda: there.receivers.slack)
        assert there.receivers.at("/slack")[0]["channel"] == "#churn-tickets"
        assert there.receivers.pages == []
        within(30, lambda: there.receivers.at("/wake"))
