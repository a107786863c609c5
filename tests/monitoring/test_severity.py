"""What pages, and which finding explains which: a fault is learned of once."""

import pytest

from monitoring.findings import Cause, Checked, Finding, Severity
from monitoring.severity import arranged


def finding(check: str, subject: str, cause: Cause, severity: Severity = Severity.TICKET) -> Finding:
    return Finding(check, subject, cause, severity, "what, and the remedy")


def pages(*findings: Finding) -> list[str]:
    checked = arranged(Checked((), findings))
    return [one.key for one in checked.findings if one.severity is Severity.PAGE]


@pytest.mark.parametrize("cause", [Cause.CORRUPTION, Cause.SKEW, Cause.STALENESS, Cause.HARM])
def test_faults_and_harm_page(cause: Cause) -> None:
    assert pages(finding("some", "spend", cause, Severity.DIGEST)) == ["some:spend"]


def test_drift_never_pages() -> None:
    assert pages(finding("drift", "spend", Cause.DRIFT, Severity.TICKET)) == []
    (kept,) = arranged(Checked((), (finding("drift", "spend", Cause.DRIFT, Severity.DIGEST),))).findings
    assert kept.severity is Severity.DIGEST


def test_a_fault_of_the_records_explains_what_comes_after_it() -> None:
    later = [
        finding("unit_change", "spend", Cause.CORRUPTION),
        finding("skew_unit", "spend", Cause.SKEW),
        finding("avoidable_loss", "all", Cause.HARM),
        finding("drift", "spend", Cause.DRIFT),
    ]
    fault = finding("amounts", "amount", Cause.CORRUPTION)
    checked = arranged(Checked((), (*later, fault)))
    assert checked.findings[0].key == "amounts:amount"
    assert {one.explained_by for one in checked.findings[1:]} == {"amounts:amount"}
    assert {one.severity for one in checked.findings[1:]} == {Severity.DIGEST}
    assert not any(one.vetoes for one in checked.findings[1:])


def test_two_features_with_faults_page_twice_and_one_feature_once() -> None:
    assert pages(
        finding("unit_change", "spend", Cause.CORRUPTION),
        finding("decrease", "spend", Cause.CORRUPTION),
        finding("newly_null", "orders", Cause.CORRUPTION),
    ) == ["newly_null:orders", "unit_change:spend"]


def test_a_copied_snapshot_explains_the_findings_of_each_feature() -> None:
    assert pages(
        finding("late_rows", "spend", Cause.CORRUPTION),
        finding("copied_snapshot", "all", Cause.STALENESS),
        finding("snapshot_unknown_id", "user_id", Cause.SKEW),
    ) == ["copied_snapshot:all"]


def test_all_amounts_explain_those_of_a_country_and_not_the_reverse() -> None:
    all_of_them, one = (finding("amounts", of, Cause.CORRUPTION) for of in ("amount", "country=DE"))
    assert pages(one, all_of_them) == ["amounts:amount"]
    assert pages(one) == ["amounts:country=DE"]


def test_harm_and_drift_explain_no_fault() -> None:
    assert pages(
        finding("avoidable_loss", "spend", Cause.HARM), finding("newly_null", "spend", Cause.CORRUPTION)
    ) == ["newly_null:spend"]
    assert pages(finding("drift", "all", Cause.DRIFT), finding("avoidable_loss", "all", Cause.HARM)) == [
        "avoidable_loss:all"
    ]
