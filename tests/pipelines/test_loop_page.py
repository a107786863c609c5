"""The page of `churn report`: complete, safe, self-contained and the same for the same facts."""

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.facts import Facts
from pipelines.report.loop_page import render
from pipelines.report.svg import numeric_axis
from pipelines.report.timeline import LEFT, WIDTH, Scale, marks_of
from support.loop_facts import HOSTILE, MANIFEST, loop_facts

START = datetime(2026, 1, 1, tzinfo=UTC)


class Elements(HTMLParser):
    """Every element with its attributes, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + " "


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return loop_facts(tmp_path_factory.mktemp("facts"))


@pytest.fixture(scope="module")
def page(facts: Facts) -> str:
    return render(facts)


def test_it_has_no_script_loads_nothing_and_only_its_own_style_sheet_may_apply(page: str) -> None:
    found = Elements(page)
    assert not [tag for tag, _ in found.elements if tag in ("script", "link", "img", "iframe", "object")]
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        assert all((attributes.get(name) or "#").startswith("#") for name in ("href", "src")), attributes
    policy = next(a["content"] for t, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    (css,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert f"style-src 'sha256-{digest}'" in policy and "unsafe" not in policy
    assert "url(" not in css and "@import" not in css


def test_texts_of_people_and_data_are_texts(page: str) -> None:
    assert "<script" not in page and "onclick='x()'" not in page
    assert Elements(page).text.count("</td><script>alert(1)</script>") >= 5  # as texts, in several sections


def test_everything_that_happened_is_on_it(page: str, facts: Facts) -> None:
    text = " ".join(Elements(page).text.split())
    for entry in facts.decisions:
        assert " ".join(entry.decision.reason.split()) in text and entry.evidence_sha256[:12] in text
    assert {entry.decision.action.value for entry in facts.decisions} == {"yes", "no", "vetoed"}
    assert "1 of 2 graded decisions were right" in text and "not yet" in text
    for finding in facts.monitored[-2].checked.findings:
        assert finding.check.replace("_", " ") in text
    assert "registry has another champion" in text and "source of nothing" in text
    assert "auroc, worst_segment" in text and "was overridden by ada" in text
    assert all(f"u_{rank:032x}" in text for rank in range(1, 21))
    assert "the newest record is of" in text


def test_equal_facts_give_equal_bytes_and_it_is_small(page: str, facts: Facts, tmp_path: Path) -> None:
    assert render(facts) == page
    again = loop_facts(tmp_path)
    # ids of rollouts are random; everything else is the same in another database
    same = replace(again, rollouts=facts.rollouts)
    assert render(same) == page
    assert len(page.encode()) < 500_000


def test_a_loop_in_which_nothing_has_happened_has_a_page_too() -> None:
    text = Elements(render(Facts("churn", MANIFEST))).text
    assert "No check has been made yet" in text and "No model has been registered yet" in text


def test_each_event_is_in_the_timeline_as_a_mark_and_in_its_table(page: str, facts: Facts) -> None:
    marks = marks_of(facts)
    expected = len(facts.decisions) + len(facts.monitored) + len(facts.rollouts) + 2 + 1
    assert len(marks) == expected
    (svg,) = re.findall(r'<svg viewBox="0 0 1000 .*?</svg>', page, re.DOTALL)
    assert svg.count("<title>") == expected + 1
    assert f"The same {expected} events as a table" in page


@given(st.lists(st.floats(0, 20_000, allow_nan=False), min_size=1, max_size=40))
def test_the_timeline_keeps_the_order_of_events_within_its_width(days: list[float]) -> None:
    times = sorted(START + timedelta(days=day) for day in days)
    scale = Scale(times)
    places = [scale(at) for at in times]
    assert places == sorted(places)
    assert all(LEFT <= place <= WIDTH for place in places)
    for at, _ in scale.labels():
        assert at in times


@given(st.lists(st.floats(-1e9, 1e9, allow_nan=False), min_size=1, max_size=20))
def test_an_axis_contains_its_values_and_has_a_few_ticks(values: list[float]) -> None:
    axis = numeric_axis("x", values)
    assert axis.low <= min(values) and axis.high >= max(values)
    assert 2 <= len(axis.ticks) <= 12
    assert all(axis.low <= tick <= axis.high for tick, _ in axis.ticks)


def test_a_hostile_text_is_really_hostile() -> None:
    assert "<script>" in HOSTILE and "onclick" in HOSTILE
