"""What a check of production data returns: numbers, and findings that a person or the governor acts on.

Measuring never starts anything. A check returns its measurements and findings; `monitoring/severity.py`
decides for all checks who learns of a finding and which findings explain others, and `retraining/governor.py`
decides whether a model is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Cause(StrEnum):
    """Why production differs from what the model was trained on. The order is that of suppression: a finding
    with an earlier cause explains those with a later one on the same subject."""

    CORRUPTION = "corruption"
    """The data are wrong: another unit, a stuck or empty column, missing or repeated rows. New training rows
    would be wrong too, so this vetoes training."""
    SKEW = "skew"
    """The server computed or read something else than the history holds. Vetoes training."""
    STALENESS = "staleness"
    """Data, features, predictions or labels are too old or too few to judge. Vetoes training."""
    HARM = "harm"
    """The model loses on outcomes that are known, and another model would lose less."""
    DRIFT = "drift"
    """Inputs, scores or outcomes have another distribution. No harm is known."""


class Severity(StrEnum):
    """Who learns of a finding."""

    PAGE = "page"
    """A person, now: confirmed harm, or data that cannot be used."""
    TICKET = "ticket"
    """A person, this week."""
    DIGEST = "digest"
    """Part of the next report."""


VETOES = frozenset({Cause.CORRUPTION, Cause.SKEW, Cause.STALENESS})
"""Causes for which a model is not trained, because its training rows would be wrong."""


@dataclass(frozen=True)
class Finding:
    """A difference between what was expected and what was observed, beyond the check's error rate."""

    check: str
    """Name of the check, for example `unit_change`."""
    subject: str
    """The feature, segment, column, topic or model version that it is about; `all` for everything."""
    cause: Cause
    severity: Severity
    message: str
    """One sentence for a person, with the numbers and the remedy; no value of a customer."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What the decision was made from."""
    explained_by: str = ""
    """The finding of which this one is a symptom, as `check:subject`; set by monitoring/severity.py."""

    @property
    def key(self) -> str:
        """`check:subject`, unique among the findings of a run."""
        return f"{self.check}:{self.subject}"

    @property
    def vetoes(self) -> bool:
        """Whether no model may be trained while this finding holds."""
        return self.cause in VETOES and self.severity is not Severity.DIGEST


@dataclass(frozen=True)
class Measurement:
    """A number at a check, for the exporter, the report and the ledger."""

    name: str
    """Name in snake_case with its unit, for example `log_loss_nats`."""
    value: float
    """NaN: it could not be measured; `rows` states how few rows there were."""
    rows: int
    subject: str = "all"
    """The feature, column or segment (`country=DE`)."""
    version: str = ""
    """The model version; empty where the number does not depend on one."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval, clustered by customer; None where there is none."""


@dataclass(frozen=True)
class Checked:
    """The result of one check, or of several together."""

    measurements: Sequence[Measurement] = ()
    findings: Sequence[Finding] = ()

    def __add__(self, other: "Checked") -> "Checked":
        return Checked((*self.measurements, *other.measurements), (*self.findings, *other.findings))


@dataclass(frozen=True)
class Monitored:
    """One run of the monitor."""

    model: str
    at: datetime
    """The end of the window: the monitor used nothing that became known later."""
    since: datetime
    """The start of the window: the end of the one before."""
    version: str
    """The model version that served at `at`."""
    checked: Checked
    evidence_sha256: str
    """Digest of the stored evidence, from which all numbers can be derived again."""
