"""Rules that a model has to pass before it may be packaged; composed from `configs/gates.yaml`."""

from math import nan

from pydantic import ValidationError

from data.errors import ConfigError
from data.workspace import Workspace, replaced_directory
from training.config import GatesConfig
from training.gates.beats_baselines import BeatsBaselines
from training.gates.calibration import Calibrated
from training.gates.floors import Floors
from training.gates.leak import Leak
from training.gates.parity import Parity
from training.gates.report import GateReport
from training.gates.rule import Rule
from training.gates.verdict import Evidence, Verdict

RULES: dict[str, type[Rule]] = {
    "floors": Floors,
    "beats_baselines": BeatsBaselines,
    "calibration": Calibrated,
    "parity": Parity,
    "leak": Leak,
}

__all__ = ["RULES", "Evidence", "GateReport", "Rule", "Verdict", "compose", "judge", "write_report"]


def judge(config: GatesConfig, evidence: Evidence) -> GateReport:
    """Every rule of the profile on this evidence; what could not be gathered is a failed verdict."""
    unknown = [Verdict("evidence", False, nan, nan, problem) for problem in evidence.problems]
    verdicts = [verdict for rule in compose(config) for verdict in rule.judge(evidence)]
    return GateReport(config.profile, evidence.program_sha256, evidence.rows, (*unknown, *verdicts))


def compose(config: GatesConfig) -> list[Rule]:
    """The profile's rules. Raises ConfigError that names a profile, rule or argument that does not exist."""
    if config.profile not in config.profiles:
        raise ConfigError(
            f"gates.profile: {config.profile} does not exist; there are {', '.join(config.profiles)}"
        )
    profile = config.profiles[config.profile]
    if not profile:
        raise ConfigError(f"gates.profiles.{config.profile}: no rules; a model must not pass unjudged")
    return [_rule(f"gates.profiles.{config.profile}.{name}", name, profile[name]) for name in profile]


def _rule(where: str, name: str, arguments: dict[str, object]) -> Rule:
    if name not in RULES:
        raise ConfigError(f"{where}: no such rule; there are {', '.join(RULES)}")
    try:
        return RULES[name].model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(
            f"{field}: {first['msg'].removeprefix('Value error, ')}; correct or remove it"
        ) from None


def write_report(report: GateReport, files: Workspace) -> None:
    """`gate_report.json` and `gate_report.md` in `files.gate_report`."""
    with replaced_directory(files.gate_report) as folder:
        (folder / "gate_report.json").write_text(report.to_json(), encoding="utf-8")
        (folder / "gate_report.md").write_text(report.to_markdown(), encoding="utf-8")
