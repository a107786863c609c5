"""The rules that a model has to pass before it may be packaged, configured in `configs/gates.yaml`."""

import json
from collections.abc import Mapping
from typing import Any

from core.config import validated
from core.errors import ConfigError
from core.workspace import Workspace, replaced_directory
from training.config import GatesConfig
from training.gates.archive import Archive
from training.gates.beats_baselines import BeatsBaselines
from training.gates.calibration import Calibrated
from training.gates.champion import NotInferior
from training.gates.evidence import Champion, Evidence
from training.gates.fairness import Fair
from training.gates.floors import Floors
from training.gates.leak import Leak
from training.gates.parity import Parity
from training.gates.report import GateReport, Override
from training.gates.rule import Rule
from training.gates.sample import Parts, Sample
from training.gates.verdict import Verdict
from training.gates.worst_part import Stable, WorstSegment

RULES: dict[str, type[Rule]] = {
    "floors": Floors,
    "beats_baselines": BeatsBaselines,
    "champion": NotInferior,
    "worst_segment": WorstSegment,
    "stability": Stable,
    "calibration": Calibrated,
    "fairness": Fair,
    "parity": Parity,
    "archive": Archive,
    "leak": Leak,
}

__all__ = [
    "RULES",
    "Champion",
    "Evidence",
    "GateReport",
    "Override",
    "Parts",
    "Rule",
    "Sample",
    "Verdict",
    "compose",
    "judge",
    "write_report",
]

EVIDENCE_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
"""What computations on damaged evidence raise; it becomes a failed verdict of the rule."""


def judge(config: GatesConfig, evidence: Evidence, overrides: tuple[Override, ...] = ()) -> GateReport:
    """Applies every rule of the profile; missing evidence and errors of a rule are failed verdicts.

    Raises ConfigError for an invalid profile, or an override of a rule that has not failed.
    """
    rules = compose(config)
    unknown = [Verdict.unjudged("evidence", problem) for problem in evidence.problems]
    verdicts = [verdict for name, rule in rules.items() for verdict in _judged(name, rule, evidence)]
    report = GateReport(
        config.profile,
        evidence.program_sha256,
        evidence.rows,
        (*unknown, *verdicts),
        measurements=evidence.archive,
    )
    return report.overridden(overrides)


def _judged(name: str, rule: Rule, evidence: Evidence) -> list[Verdict]:
    try:
        return rule.judge(evidence) or [Verdict.unjudged(name, "the rule gave no verdict")]
    except EVIDENCE_ERRORS as error:
        message = " ".join(str(error).split())[:200]
        return [Verdict.unjudged(name, f"could not be judged: {type(error).__name__}: {message}")]


def compose(config: GatesConfig) -> dict[str, Rule]:
    """The rules of the profile. Raises ConfigError for an unknown profile, rule or argument."""
    if config.profile not in config.profiles:
        raise ConfigError(
            f"gates.profile: {config.profile} does not exist; there are {', '.join(config.profiles)}"
        )
    profile = config.profiles[config.profile]
    if not profile:
        raise ConfigError(f"gates.profiles.{config.profile}: no rules; a model must not pass unjudged")
    return {name: _rule(f"gates.profiles.{config.profile}.{name}", name, profile[name]) for name in profile}


def _rule(where: str, name: str, arguments: dict[str, object]) -> Rule:
    if name not in RULES:
        raise ConfigError(f"{where}: no such rule; there are {', '.join(RULES)}")
    return validated(RULES[name], arguments, f"{where}.")


def write_report(report: GateReport, files: Workspace, breakdown: Mapping[str, Any] | None = None) -> None:
    """`gate_report.json`, `gate_report.md`, `measurements.json` (sizes and times) and `breakdown.json`
    (metrics of each period and segment) in `files.gate_report`."""
    with replaced_directory(files.gate_report) as folder:
        (folder / "gate_report.json").write_text(report.to_json(), encoding="utf-8")
        (folder / "gate_report.md").write_text(report.to_markdown(), encoding="utf-8")
        (folder / "measurements.json").write_text(json.dumps(dict(report.measurements), indent=1))
        (folder / "breakdown.json").write_text(json.dumps(breakdown or {}, indent=1), encoding="utf-8")
