"""The page of a rollout shows what was decided, when and why, and needs no other file."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.workspace import Workspace
from pipelines.rollout_report import report_record, section, write_rollout_page
from rollout.evidence import Arm, Evidence, Window
from rollout.observers.observer import Opened
from rollout.rules.rule import Verdict
from rollout.state import Event, Phase, Rollout
from rollout.targets.target import Candidate

BEGUN = datetime(1998, 7, 1, 12, tzinfo=UTC)
STABLE = Candidate("/store/a/churn.mar", "a" * 64, "aaaaaaaaaaaa")
CANARY = Candidate("/store/b/churn.mar", "b" * 64, "bbbbbbbbbbbb")
PLAN = ((0, True), (1, False), (5, False), (25, False), (50, False), (100, False))


def at(seconds: float) -> datetime:
    return BEGUN + timedelta(seconds=seconds)


def rollout_of(phase: Phase, outcome: str, windows: int, previous: Candidate | None = STABLE) -> Rollout:
    return Rollout(
        id="19980701-120000-bbbbbb-0001",
        model="churn",
        candidate=CANARY,
        previous=previous,
        phase=phase,
        stage=windows - 1,
        paused=False,
        windows=tuple(
            Opened(weight, mirror, at(10 + 10 * index), at(20 + 10 * index))
            for index, (weight, mirror) in enumerate(PLAN[:windows])
        ),
        started=BEGUN,
        by="ann",
        reason="trained on <March>",
        plan={},
        since=at(10),
        ended=at(10 + 10 * windows),
        outcome=outcome,
    )


def evidence_of(windows: int, canary_errors: int = 0) -> Evidence:
    numbers = np.random.default_rng(7)
    made = []
    for weight, mirror in PLAN[:windows]:
        sent = 1000 if mirror else 10 * weight
        scores = numbers.beta(2, 5, 1000)
        made.append(
            Window(
                weight,
                mirror,
                10.0,
                Arm(
                    requests=1000 - (0 if mirror else sent),
                    slow=2,
                    p99_ms=18.5,
                    customers=1000,
                    missing=3,
                    high_risk=310,
                    scores=scores,
                ),
                Arm(
                    requests=sent,
                    errors=canary_errors,
                    slow=1,
                    p99_ms=21.25 if sent > 50 else None,
                    customers=sent,
                    missing=1,
                    high_risk=4,
                    scores=scores[:sent],
                ),
                scores[:0] if not mirror else np.zeros(1000),
            )
        )
    return Evidence(tuple(made))


def promoted() -> dict[str, Any]:
    events = [Event(at(0), "start", "trained on <March>", who="ann")]
    events.append(Event(at(0.2), "deploy", "canary bbbbbbbbbbbb is brought up at weight 0"))
    for index, (weight, mirror) in enumerate(PLAN):
        events.append(
            Event(
                at(10 + 10 * index), "advance", f"to {weight} %", {"seconds": 10.0, "bad": float("nan")},
                (Verdict("error_rate", "advance", "0 of 500 against 0 of 500", {"e_value": 0.4}),),
                weight, mirror, "stage", index,
            )
        )  # fmt: skip
    verdicts = (
        Verdict("error_rate", "advance", "0 of 1,810 against 0 of 5,190", {"e_value": 0.3}),
        Verdict("outcomes", "advance", "no labels yet"),
    )
    events.append(Event(at(69), "promote", "100 % is passed", {}, verdicts, 100, phase="promoting"))
    events.append(Event(at(70), "finish", "no objection", weight=100, phase="promoted"))
    rollout = rollout_of("promoted", "no objection in 5 s after promotion", 6)
    return report_record(rollout, events, evidence_of(6))


def rolled_back() -> dict[str, Any]:
    reason = "error_rate: 14 of 120 requests failed, 0 of 2,800 of stable's"
    events = [
        Event(at(0), "start", "why not"),
        Event(at(10), "advance", "ready", mirror=True, phase="stage"),
        Event(at(20), "advance", "shadow is passed", weight=1, phase="stage"),
        Event(at(24), "roll_back", reason, weight=0, phase="rolling_back"),
        Event(at(24.5), "end", reason, weight=0, phase="rolled_back"),
    ]
    return report_record(rollout_of("rolled_back", reason, 2), events, evidence_of(2, 14))


def test_the_record_is_json_and_names_nobody() -> None:
    record = promoted()
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text) == record
    assert len(record["windows"]) == 6 and record["seconds"] == 70
    shadow = record["windows"][0]
    assert shadow["pairs"] == 1000 and shadow["largest_difference"] == 0
    assert shadow["canary"]["requests"] == 1000 and shadow["canary"]["p99_ms"] == 21.25
    assert sum(record["scores"]["stable"]) == 6000
    assert "bad" not in record["decisions"][2]["numbers"]


@pytest.mark.parametrize(("record", "outcome"), [(promoted(), "Promoted"), (rolled_back(), "Rolled back")])
def test_every_decision_is_shown_with_its_reason(record: dict[str, Any], outcome: str) -> None:
    html = section(record)
    text = " ".join(unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html, flags=re.DOTALL)).split())
    assert text.startswith(f"The canary {outcome}")
    for decision in record["decisions"]:
        assert decision["reason"] in text
    for rule in record["rules"]:
        assert rule["reason"] in text
    assert html.count("<svg") == 4
    assert "trained on <March>" not in html


def test_numbers_of_both_variants_are_side_by_side() -> None:
    html = section(rolled_back())
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.S)]
    one_percent = next(row for row in cells if row and row[0] == "1 %")
    canary = cells[cells.index(one_percent) + 1]
    assert one_percent[1:7] == ["stable", "10.0", "990", "0", "2", "18.5"]
    assert canary[1:7] == ["canary", "", "10", "14", "1", "–"]


def test_the_pictures_show_what_happened() -> None:
    for record, end in ((promoted(), "promoted"), (rolled_back(), "rolled back")):
        timeline = re.findall(r"<svg.*?</svg>", section(record), re.DOTALL)[0]
        drawn = re.findall(r"<!-- (.*?) -->", timeline)
        assert end in drawn and "shadow" in drawn


def test_a_first_deployment_states_that_nothing_is_compared() -> None:
    first = report_record(rollout_of("promoted", "fine", 6, None), [], evidence_of(6))
    assert "nothing to compare it with" in section({**first, "decisions": promoted()["decisions"]})
    assert "beside aaaaaaaaaaaa as stable" in section(promoted())


def test_where_there_was_no_canary_it_says_why() -> None:
    assert "there is no Envoy for plan9 &amp; amd64" in section(
        {"left_out": "there is no Envoy for plan9 & amd64"}
    )


def test_a_rollout_that_never_began_has_a_page_too(tmp_path: Path) -> None:
    why = "the canary was not ready within 180 s"
    events = [Event(at(0), "start", "go"), Event(at(180), "roll_back", why)]
    rollout = rollout_of("rolled_back", why, 0)
    record = report_record(rollout, events, Evidence())
    page = write_rollout_page(record, Workspace(tmp_path)).read_text()
    assert why in page and page.count("<svg") == 1


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    file = write_rollout_page(promoted(), Workspace(tmp_path))
    assert file == tmp_path / "reports" / "rollout-19980701-120000-bbbbbb-0001.html"
    page = re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", file.read_text())
    assert re.findall(r"(?:src|href)=[\"'](?!#)[^\"']*", page) == [] and "<script" not in page
