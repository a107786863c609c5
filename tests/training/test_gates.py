"""Each rule on numbers: passes, fails, and fails on what is missing or NaN."""

from dataclasses import replace
from math import inf, nan

import pytest

from churn.settings import Settings
from data.errors import ConfigError, PackagingError
from data.workspace import Workspace
from training.config import GatesConfig
from training.gates import RULES, Evidence, GateReport, Rule, judge, write_report

HONEST = Evidence(
    program_sha256="ab" * 32,
    rows=70_710,
    metrics={"log_loss": 0.319, "auroc": 0.828, "auprc_lift": 1.12, "accuracy": 0.87, "ece": 0.006},
    baselines={"logistic_regression": {"log_loss": 0.323}, "base_rate": {"log_loss": 0.430}},
    expected_baselines=("base_rate", "logistic_regression"),
    program_difference=2e-9,
    single_feature_auroc={"recency_days": 0.78, "active_days": 0.81},
)
ARGUMENTS = {
    "floors": {"minimum": {"auroc": 0.6, "accuracy": 0.85}, "maximum": {"ece": 0.1}},
    "beats_baselines": {"metric": "log_loss"},
    "calibration": {"max_ece": 0.05},
    "parity": {"tolerance": 1e-6},
    "leak": {"max_auroc": 0.99, "max_single_feature_auroc": 0.98},
}


def changed(**metrics: object) -> Evidence:
    return replace(HONEST, metrics={**HONEST.metrics, **metrics})


def without(metric: str) -> Evidence:
    return replace(HONEST, metrics={k: v for k, v in HONEST.metrics.items() if k != metric})


def refused(name: str, evidence: Evidence, **arguments: object) -> list[str]:
    """The names of the verdicts that did not pass."""
    rule: Rule = RULES[name].model_validate({**ARGUMENTS[name], **arguments})
    return [verdict.rule for verdict in rule.judge(evidence) if not verdict.passed]


@pytest.mark.parametrize("name", RULES)
def test_the_honest_model_passes(name: str) -> None:
    assert refused(name, HONEST) == []


@pytest.mark.parametrize("name", RULES)
def test_no_evidence_is_no_pass(name: str) -> None:
    verdicts = RULES[name].model_validate(ARGUMENTS[name]).judge(Evidence(program_sha256=""))

    assert verdicts
    assert not any(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("name", "evidence", "fails"),
    [
        ("floors", changed(accuracy=0.849), ["floors.accuracy"]),
        ("floors", changed(accuracy=0.85), []),
        ("floors", changed(ece=0.11), ["floors.ece"]),
        ("floors", without("auroc"), ["floors.auroc"]),
        ("floors", changed(auroc=nan), ["floors.auroc"]),
        ("floors", changed(auroc=inf), ["floors.auroc"]),
        ("floors", changed(ece=-inf), ["floors.ece"]),
        ("floors", changed(auroc="0.9"), ["floors.auroc"]),
        ("floors", changed(auroc=True), ["floors.auroc"]),
        ("floors", changed(auroc=None), ["floors.auroc"]),
        ("beats_baselines", changed(log_loss=0.324), ["beats_baselines.logistic_regression"]),
        ("beats_baselines", changed(log_loss=0.323), ["beats_baselines.logistic_regression"]),
        (
            "beats_baselines",
            changed(log_loss=nan),
            ["beats_baselines.base_rate", "beats_baselines.logistic_regression"],
        ),
        (
            "beats_baselines",
            replace(HONEST, baselines={"base_rate": {"log_loss": 0.43}}),
            ["beats_baselines.logistic_regression"],
        ),
        (
            "beats_baselines",
            replace(HONEST, baselines={**HONEST.baselines, "base_rate": {"log_loss": nan}}),
            ["beats_baselines.base_rate"],
        ),
        ("beats_baselines", replace(HONEST, expected_baselines=()), ["beats_baselines"]),
        ("calibration", changed(ece=0.051), ["calibration"]),
        ("calibration", changed(ece=nan), ["calibration"]),
        ("parity", replace(HONEST, program_difference=1.1e-6), ["parity"]),
        ("parity", replace(HONEST, program_difference=nan), ["parity"]),
        ("leak", changed(auroc=0.995), ["leak.model"]),
        ("leak", changed(auroc=nan), ["leak.model"]),
        ("leak", replace(HONEST, single_feature_auroc={"a": 0.7, "b": 0.99}), ["leak.feature"]),
        ("leak", replace(HONEST, single_feature_auroc={"a": 0.7, "b": nan, "c": 0.8}), ["leak.feature"]),
        ("leak", replace(HONEST, single_feature_auroc={}), ["leak.feature"]),
    ],
)
def test_a_rule_refuses_what_it_must(name: str, evidence: Evidence, fails: list[str]) -> None:
    assert refused(name, evidence) == fails


def test_a_margin_grants_a_tie_and_no_more() -> None:
    assert refused("beats_baselines", changed(log_loss=0.3239), margin=0.001) == []
    assert refused("beats_baselines", changed(log_loss=0.3241), margin=0.001) == [
        "beats_baselines.logistic_regression"
    ]


def gates(**rules: dict[str, object]) -> GatesConfig:
    return GatesConfig(profile="p", profiles={"p": rules})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            GatesConfig(profile="strict", profiles={"default": {}}),
            r"gates\.profile: strict .* there are default",
        ),
        (gates(), "no rules"),
        (gates(florrs={"minimum": {}}), r"gates\.profiles\.p\.florrs: no such rule; there are floors"),
        (gates(calibration={"max_ece": 0.05, "bins": 3}), r"gates\.profiles\.p\.calibration\.bins"),
        (gates(calibration={}), r"gates\.profiles\.p\.calibration\.max_ece"),
        (gates(parity={"tolerance": "small"}), r"gates\.profiles\.p\.parity\.tolerance"),
        (gates(floors={}), "minimum or a maximum"),
    ],
)
def test_a_wrong_gate_configuration_is_named(config: GatesConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        judge(config, HONEST)
    assert "\n" not in str(caught.value)


def test_the_classic_profile_is_not_met_by_an_honest_log(small: Settings) -> None:
    classic = small.gates.model_copy(update={"profile": "classic"})
    metrics = {**HONEST.metrics, "precision": 0.778, "recall": 0.640}

    report = judge(classic, replace(HONEST, metrics=metrics))

    assert [verdict.rule for verdict in report.refusals] == ["floors.precision", "floors.recall"]


def test_a_problem_with_the_evidence_refuses_the_model(small: Settings) -> None:
    assert judge(small.gates, HONEST).passed
    report = judge(small.gates, replace(HONEST, problems=("program: BadZipFile: no zip file",)))

    assert not report.passed
    assert "BadZipFile" in report.refusals[0].reason


def test_a_report_without_verdicts_has_not_passed() -> None:
    assert not GateReport("p", "ab", 0, ()).passed


def test_the_report_reads_back_and_says_why(small: Settings, tmp_path) -> None:
    files = Workspace(tmp_path)
    report = judge(small.gates, changed(ece=nan, auroc=0.5))
    write_report(report, files)
    read = GateReport.read(files.gate_report)
    text = (files.gate_report / "gate_report.md").read_text()

    assert read.to_json() == report.to_json()
    assert read.digest == report.digest
    assert not read.passed
    assert "REFUSED" in text
    assert "| floors.auroc | **FAIL** | 0.5 | 0.6 | auroc 0.5 is below 0.6 |" in text
    assert "| calibration | **FAIL** | missing | 0.05 |" in text
    assert "PASSED" in judge(small.gates, HONEST).to_markdown()


def test_a_report_that_is_not_there_or_damaged_is_an_error_of_one_line(tmp_path) -> None:
    for content in (None, "{", '{"verdicts": []}'):
        if content is not None:
            (tmp_path / "gate_report.json").write_text(content)
        with pytest.raises(PackagingError, match="no gate report; run `churn gates` first"):
            GateReport.read(tmp_path)
