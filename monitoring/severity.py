"""The one place that decides who learns of a finding, and which finding explains another.

Harm, skew, corruption and staleness page. Drift is a ticket or a line of the digest, as its check decided: a
ticket where a distribution differs from the training rows and from the same season.

Data flow from the records to the snapshots, to the server, and to the outcomes. A fault at one place changes
everything after it, so a page explains all findings at later places. At one place, a finding explains others
of the same subject that follow from it: a column that is empty is also newly null. What is explained is in
the digest, with the finding that explains it; it is found again when that one is mended and it is not.
"""

from dataclasses import replace

from monitoring.findings import VETOES, Cause, Checked, Finding, Severity

RECORDS = frozenset(
    {"past_rows", "past_customers", "volume", "customers_missing", "amounts", "duplicates", "time_zone"}
)
"""Checks of the rows that arrive."""

PLACES = {Cause.CORRUPTION: 1, Cause.SKEW: 2, Cause.STALENESS: 2, Cause.HARM: 3, Cause.DRIFT: 4}
"""Where the data are when a finding of this cause is made: 0 records, 1 snapshots, 2 server, 3 outcomes."""

FIRST = (
    *("past_customers", "past_rows", "stale", "copied_snapshot", "snapshot_missing"),
    *("column_missing", "column_empty", "column_constant", "newly_null", "nulls", "stuck_at_default"),
    *("unit_change", "decrease"),
)
"""At one place and of one subject, an earlier check of this list explains a later one, and any other."""


def arranged(checked: Checked) -> Checked:
    """The same measurements, and the findings with their severity and what explains them, pages first."""
    findings = sorted(checked.findings, key=_order)
    known = [
        _judged(finding, [other for other in findings[:number] if _explains(other, finding)])
        for number, finding in enumerate(findings)
    ]
    ranks = list(Severity)
    return Checked(checked.measurements, tuple(sorted(known, key=lambda one: ranks.index(one.severity))))


def _judged(finding: Finding, explaining: list[Finding]) -> Finding:
    if explaining:
        return replace(finding, severity=Severity.DIGEST, explained_by=explaining[0].key)
    severity = finding.severity if finding.cause is Cause.DRIFT else Severity.PAGE
    return replace(finding, severity=severity, explained_by="")


def _explains(earlier: Finding, later: Finding) -> bool:
    """Whether `earlier`, which precedes `later` in the order of places and checks, explains it."""
    if earlier.cause in VETOES and _place(earlier) < _place(later):
        return True
    return earlier.subject == later.subject and _order(earlier) < _order(later)


def _order(finding: Finding) -> tuple[int, int, str, str]:
    first = FIRST.index(finding.check) if finding.check in FIRST else len(FIRST)
    return _place(finding), first, finding.check, finding.subject


def _place(finding: Finding) -> int:
    if finding.check in RECORDS or (finding.check, finding.subject) == ("stale", "records"):
        return 0
    if (finding.check, finding.subject) == ("stale", "snapshots") or finding.check.startswith("snapshot_"):
        return 1
    return 1 if finding.check == "copied_snapshot" else PLACES[finding.cause]
