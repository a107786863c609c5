"""The gate report of one model, as JSON and as Markdown."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from math import isfinite, nan
from pathlib import Path
from typing import Self

from core.errors import ConfigError, PackagingError
from data.config import utc_text
from training.gates.verdict import Verdict

NEVER_OVERRIDDEN = ("evidence", "parity")
"""Rules that cannot be overridden: without them it is unknown which program would be served."""


@dataclass(frozen=True)
class Override:
    """A person's decision to let a model pass despite a rule."""

    rule: str
    """The name of a verdict, or of a rule for all of its verdicts."""
    reason: str
    who: str
    when: str
    """UTC, ISO 8601."""

    @classmethod
    def by(cls, who: str, when: datetime, rule: str, reason: str) -> Self:
        """Raises ConfigError without a reason, or for a rule that cannot be overridden."""
        if not reason.strip():
            raise ConfigError(f"--override {rule}: give a --reason; it is recorded with your name")
        if rule.split(".")[0] in NEVER_OVERRIDDEN:
            raise ConfigError(
                f"--override {rule}: cannot be overridden: the served program would be unknown; train again"
            )
        return cls(rule, " ".join(reason.split()), who, utc_text(when))

    def covers(self, verdict: Verdict) -> bool:
        """Whether the override applies to this verdict."""
        if verdict.rule.split(".")[0] in NEVER_OVERRIDDEN:
            return False
        return verdict.rule == self.rule or verdict.rule.startswith(f"{self.rule}.")


@dataclass(frozen=True)
class GateReport:
    """The same model, rows, champion and rules give the same bytes of JSON and the same digest. So the JSON
    has no time except that of an override, and no `measurements`, which are only in the Markdown."""

    profile: str
    program_sha256: str
    rows: int
    verdicts: tuple[Verdict, ...]
    overrides: tuple[Override, ...] = ()
    measurements: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every failure is overridden; False without verdicts."""
        return bool(self.verdicts) and not self.refusals

    @property
    def failures(self) -> tuple[Verdict, ...]:
        """All verdicts that did not pass, overridden ones included."""
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def refusals(self) -> tuple[Verdict, ...]:
        """The failures that are not overridden."""
        return tuple(v for v in self.failures if not any(override.covers(v) for override in self.overrides))

    @property
    def state(self) -> str:
        """`passed`, `overridden` (passed by a person's decision) or `refused`."""
        if not self.passed:
            return "refused"
        return "overridden" if self.failures else "passed"

    def overridden(self, overrides: tuple[Override, ...]) -> Self:
        """The report with these overrides. Raises ConfigError for one that covers no failed verdict."""
        for override in overrides:
            if not any(override.covers(verdict) for verdict in self.failures):
                failed = ", ".join(verdict.rule for verdict in self.failures) or "nothing"
                raise ConfigError(f"--override {override.rule}: no such failed rule; {failed} failed")
        return replace(self, overrides=overrides)

    @property
    def digest(self) -> str:
        """sha256 of gate_report.json."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The content of gate_report.json; missing numbers are null."""
        content = {
            "passed": self.passed,
            "profile": self.profile,
            "program_sha256": self.program_sha256,
            "rows": self.rows,
            "verdicts": [
                asdict(v) | {"value": _or_null(v.value), "bound": _or_null(v.bound)} for v in self.verdicts
            ],
            "overrides": [asdict(override) for override in self.overrides],
        }
        return json.dumps(content, indent=1)

    def to_markdown(self) -> str:
        """The report for people."""
        lines = [
            f"# Gate report: {self.state.upper()}",
            "",
            self._summary(),
            "",
            f"Rules: profile `{self.profile}` of `configs/gates.yaml`. Judged on {self.rows:,} rows that the "
            f"model never saw. Program `{self.program_sha256[:12]}`.",
            "",
            *(f"- {verdict.rule}: {verdict.reason}" for verdict in self.refusals),
            *([""] if self.refusals else []),
            "| check | result | number | bound | why |",
            "|---|---|---|---|---|",
            *map(self._line, self.verdicts),
        ]
        if self.overrides:
            lines += [
                "",
                "## Overridden by a person",
                "",
                "| check | who | when | reason |",
                "|---|---|---|---|",
            ]
            lines += [_row(o.rule, o.who, o.when, o.reason) for o in self.overrides]
        if self.measurements:
            lines += ["", "## Measured on this machine", "", "| what | number |", "|---|---|"]
            lines += [_row(name, _shown(value)) for name, value in self.measurements.items()]
        return "\n".join(lines) + "\n"

    def _summary(self) -> str:
        checks = len(self.verdicts)
        if self.state == "passed":
            return f"All {checks} checks hold: the model may be packaged and put on trial."
        failed = f"{len(self.failures)} of {checks} checks failed"
        if self.state == "overridden":
            return f"{failed}, and a person has decided that the model may be packaged all the same."
        return f"{failed}: the model must not be served."

    def _line(self, verdict: Verdict) -> str:
        result = "pass" if verdict.passed else "**FAIL**"
        if not verdict.passed and verdict not in self.refusals:
            result = "**FAIL**, overridden"
        known = isfinite(verdict.value) or not verdict.passed
        value = _shown(verdict.value) if known else ""
        bound = _shown(verdict.bound) if isfinite(verdict.bound) else ""
        return _row(verdict.rule, result, value, bound, verdict.reason)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The report in `folder`. Raises PackagingError if there is none that can be read."""
        file = folder / "gate_report.json"
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise PackagingError(f"{file}: no gate report; run `churn gates` first") from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From the text of `to_json`. Raises ValueError for anything else."""
        try:
            content = json.loads(text)
            verdicts = tuple(
                Verdict(v["rule"], v["passed"] is True, _or_nan(v["value"]), _or_nan(v["bound"]), v["reason"])
                for v in content["verdicts"]
            )
            overrides = tuple(Override(**override) for override in content["overrides"])
            return cls(content["profile"], content["program_sha256"], content["rows"], verdicts, overrides)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no gate report: {error}") from None


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _or_null(value: float) -> float | None:
    return value if isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


def _shown(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "missing"
