"""The judgement on one model, for machines and for people."""

import hashlib
import json
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Self

from data.errors import PackagingError
from training.gates.verdict import Verdict


@dataclass(frozen=True)
class GateReport:
    """Holds no time of its own: the same model, rows and rules give the same bytes."""

    profile: str
    program_sha256: str
    rows: int
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts)

    @property
    def refusals(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if not verdict.passed)

    @property
    def digest(self) -> str:
        """sha256 of gate_report.json."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        content = {
            "passed": self.passed,
            "profile": self.profile,
            "program_sha256": self.program_sha256,
            "rows": self.rows,
            "verdicts": [
                asdict(v) | {"value": _or_null(v.value), "bound": _or_null(v.bound)} for v in self.verdicts
            ],
        }
        return json.dumps(content, indent=1)

    def to_markdown(self) -> str:
        refused = len(self.refusals)
        headline = "PASSED" if self.passed else "REFUSED"
        summary = (
            f"All {len(self.verdicts)} checks hold: the model may be packaged and put on trial."
            if self.passed
            else f"{refused} of {len(self.verdicts)} checks failed: the model must not be served."
        )
        lines = [
            f"# Gate report: {headline}",
            "",
            summary,
            "",
            f"Rules: profile `{self.profile}` of `configs/gates.yaml`. Judged on {self.rows:,} rows that the "
            f"model never saw. Program `{self.program_sha256[:12]}`.",
            "",
            "| check | result | number | bound | why |",
            "|---|---|---|---|---|",
            *map(_line, self.verdicts),
        ]
        return "\n".join(lines) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The report in `folder`. Raises PackagingError where there is none that can be read."""
        file = folder / "gate_report.json"
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            verdicts = tuple(
                Verdict(v["rule"], v["passed"] is True, _or_nan(v["value"]), _or_nan(v["bound"]), v["reason"])
                for v in content["verdicts"]
            )
            return cls(content["profile"], content["program_sha256"], content["rows"], verdicts)
        except (OSError, ValueError, KeyError, TypeError):
            raise PackagingError(f"{file}: no gate report; run `churn gates` first") from None


def _line(verdict: Verdict) -> str:
    result = "pass" if verdict.passed else "**FAIL**"
    cells = (
        verdict.rule,
        result,
        _shown(verdict.value),
        _shown(verdict.bound),
        verdict.reason.replace("|", "/"),
    )
    return f"| {' | '.join(cells)} |"


def _or_null(value: float) -> float | None:
    return value if isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


def _shown(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "missing"
