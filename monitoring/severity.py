"""The one place that decides who learns of a finding, and which finding explains another.

A check states what it found and the cause. Harm, skew, corruption and staleness page; drift is a ticket where
it also differs from the same season, and a line of the digest otherwise (`check` decides that by its name).
A fault explains its symptoms: a finding with an earlier cause explains those with a later one on the same
subject, and a fault of everything explains those of each subject. What is explained is in the digest.
"""

from collections.abc import Sequence
from dataclasses import replace

from monitoring.findings import Cause, Checked, Finding, Severity

ORDER = list(Cause)
"""Causes in the order of suppression."""

EVERYTHING = "all"


def arranged(checked: Checked) -> Checked:
    """The same measurements, and the findings with their severity and what explains them, pages first."""
    findings = sorted(checked.findings, key=lambda one: (ORDER.index(one.cause), one.check, one.subject))
    levels = [_explained(one, findings) for one in findings]
    ranks = list(Severity)
    return Checked(checked.measurements, tuple(sorted(levels, key=lambda one: ranks.index(one.severity))))


def _explained(finding: Finding, others: Sequence[Finding]) -> Finding:
    for other in others:
        if other.key != finding.key and _explains(other, finding):
            return replace(finding, severity=Severity.DIGEST, explained_by=other.key)
    return replace(finding, severity=_severity(finding), explained_by="")


def _severity(finding: Finding) -> Severity:
    return finding.severity if finding.cause is Cause.DRIFT else Severity.PAGE


def _explains(fault: Finding, symptom: Finding) -> bool:
    """Whether `fault` explains `symptom`. It is a strict order, so that nothing explains itself."""
    if fault.subject not in (symptom.subject, EVERYTHING):
        return False
    return ORDER.index(fault.cause) < ORDER.index(symptom.cause)
