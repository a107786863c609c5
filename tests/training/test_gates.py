"""Each rule on numbers: passes, fails, and fails on what is missing or NaN."""

from dataclasses import replace
from datetime import UTC, datetime
from math import inf, nan

import numpy as np
import pytest
from scipy.special import expit

from churn.settings import Settings
from core.errors import ConfigError, PackagingError
from core.workspace import Workspace
from training.config import GatesConfig
from training.gates import (
    RULES,
    Champion,
    Evidence,
    GateReport,
    Override,
    Parts,
    Rule,
    Sample,
    judge,
    write_report,
)
from training.gates.beats_baselines import BeatsBaselines

DRAW = np.random.default_rng(0)
CUSTOMERS = 800
LEVEL = DRAW.normal(1.5, 1.5, CUSTOMERS)
"""Of each customer's odds of churning; rows are two months of each."""


def scores(noise: float, sharpness: float = 1.0) -> np.ndarray:
    """The truth, seen through noise."""
    return expit(
        sharpness * (np.tile(LEVEL, 2) + noise * np.random.default_rng(1).normal(size=2 * CUSTOMERS))
    )


SAMPLE = Sample(
    customer=np.tile(np.arange(CUSTOMERS), 2),
    churned=(DRAW.random(2 * CUSTOMERS) < scores(0)).astype(float),
    score=scores(0),
    threshold=0.5,
    periods=Parts(np.repeat([0, 1], CUSTOMERS), ("1998-01-01", "1998-02-01")),
    segments={"plan": Parts(np.tile(np.arange(CUSTOMERS) % 4, 2), ("a", "b", "c", "d"))},
    groups={"gender": Parts(np.tile(np.arange(CUSTOMERS) % 2, 2), ("f", "m"))},
    baselines={
        "logistic_regression": scores(0.5),
        "base_rate": np.full(2 * CUSTOMERS, scores(0).mean()),
    },
    champion=scores(0.2),
)
HONEST = Evidence(
    program_sha256="ab" * 32,
    packaged_sha256="ab" * 32,
    rows=1600,
    metrics={"log_loss": 0.319, "auroc": 0.828, "auprc_lift": 1.12, "accuracy": 0.87, "ece": 0.006},
    sample=SAMPLE,
    expected_baselines=("base_rate", "logistic_regression"),
    expected_groups=("gender",),
    champion=Champion("scored", "3"),
    program_difference=2e-9,
    archive={"megabytes": 0.4, "p50_ms": 1.0, "p95_ms": 2.0},
    single_feature_auroc={"recency_days": 0.78, "active_days": 0.81},
)
ARGUMENTS: dict[str, dict[str, object]] = {
    "floors": {"minimum": {"auroc": 0.6, "accuracy": 0.85}, "maximum": {"ece": 0.1}},
    "beats_baselines": {"metric": "log_loss"},
    "champion": {},
    "worst_segment": {},
    "stability": {},
    "calibration": {"max_ece": 0.05},
    "fairness": {"max_selection_gap": 0.2},
    "parity": {"tolerance": 1e-6},
    "archive": {"max_megabytes": 50, "max_p95_ms": 100},
    "leak": {"max_auroc": 0.99, "max_single_feature_auroc": 0.98},
}


def sampled(**fields: object) -> Evidence:
    return replace(HONEST, sample=replace(SAMPLE, **fields))


def spoilt(part: np.ndarray) -> np.ndarray:
    """The honest scores, turned round where `part`."""
    return np.where(part, 1 - SAMPLE.score, SAMPLE.score)


def with_nan() -> np.ndarray:
    found = SAMPLE.score.copy()
    found[7] = nan
    return found


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
        ("beats_baselines", sampled(score=scores(0.8)), ["beats_baselines.logistic_regression"]),
        (
            "beats_baselines",
            sampled(score=with_nan()),
            ["beats_baselines.base_rate", "beats_baselines.logistic_regression"],
        ),
        (
            "beats_baselines",
            sampled(baselines={"base_rate": SAMPLE.baselines["base_rate"]}),
            ["beats_baselines.logistic_regression"],
        ),
        (
            "beats_baselines",
            sampled(baselines={**SAMPLE.baselines, "base_rate": with_nan()}),
            ["beats_baselines.base_rate"],
        ),
        ("beats_baselines", replace(HONEST, expected_baselines=()), ["beats_baselines"]),
        ("champion", replace(HONEST, champion=None), ["champion"]),
        ("champion", replace(HONEST, champion=Champion("none")), []),
        ("champion", replace(HONEST, champion=Champion("unusable", "3", "other spec")), ["champion"]),
        ("champion", sampled(champion=None), ["champion"]),
        ("champion", sampled(champion=with_nan()), ["champion"]),
        ("champion", sampled(champion=SAMPLE.score), []),  # the very same model
        ("champion", sampled(score=scores(0.8)), ["champion"]),
        ("worst_segment", sampled(score=spoilt(SAMPLE.segments["plan"].code == 2)), ["worst_segment"]),
        ("worst_segment", sampled(score=with_nan()), ["worst_segment"]),
        ("worst_segment", sampled(champion=None, baselines={}), ["worst_segment"]),
        ("worst_segment", sampled(segments={}), []),
        ("stability", sampled(score=spoilt(SAMPLE.periods.code == 1)), ["stability"]),
        ("stability", sampled(periods=Parts(np.zeros(1600, np.int64), ("once",))), []),
        ("calibration", sampled(score=scores(0, sharpness=3)), ["calibration"]),
        ("calibration", sampled(score=with_nan()), ["calibration"]),
        ("fairness", replace(HONEST, expected_groups=()), []),
        (
            "fairness",
            replace(HONEST, expected_groups=("age",)),
            ["fairness.age.selection", "fairness.age.recall"],
        ),
        (
            "fairness",
            sampled(score=np.where(SAMPLE.groups["gender"].code == 1, 0.1, SAMPLE.score)),
            ["fairness.gender.selection", "fairness.gender.recall"],
        ),
        ("parity", replace(HONEST, packaged_sha256="cd" * 32), ["parity.archive"]),
        ("parity", replace(HONEST, packaged_sha256=""), ["parity.archive"]),
        ("archive", replace(HONEST, archive={**HONEST.archive, "p95_ms": 101.0}), ["archive.latency"]),
        ("archive", replace(HONEST, archive={**HONEST.archive, "megabytes": nan}), ["archive.size"]),
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


def test_a_tie_passes_a_difference_beyond_doubt_does_not() -> None:
    """Two models of one skill differ by chance; so does one that is better by what does not matter."""
    equal = SAMPLE.score + np.where(np.arange(2 * CUSTOMERS) % 2, 1e-4, -1e-4)
    tie = replace(
        sampled(baselines={"logistic_regression": equal}), expected_baselines=("logistic_regression",)
    )
    assert "a tie within the margin" in BeatsBaselines().judge(tie)[0].reason
    assert refused("beats_baselines", tie) == []
    assert refused("beats_baselines", tie, margin_share=0.0) == ["beats_baselines.logistic_regression"]
    surely = replace(HONEST, sample=replace(SAMPLE, score=scores(0.8)))
    assert refused("beats_baselines", surely, margin=10.0) == ["beats_baselines.logistic_regression"]


def test_a_champion_may_be_a_little_better_but_not_much() -> None:
    a_little = sampled(score=scores(0.25), champion=scores(0.0))
    assert refused("champion", a_little, margin=0.05) == []
    assert refused("champion", a_little, margin=0.0, margin_share=0.0) == ["champion"]


def test_a_rule_that_raises_is_a_failed_verdict(small: Settings) -> None:
    broken = sampled(segments={"plan": Parts(np.full(1600, 5), ("a", "b"))})

    report = judge(small.gates, broken)

    assert [verdict.rule for verdict in report.refusals] == ["worst_segment"]
    assert "could not be judged" in report.refusals[0].reason


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
    assert "| floors.ece | **FAIL** | missing | 0.1 |" in text
    assert "p95_ms | 2 |" in text
    assert "2.0" not in read.to_json()  # what a clock measured is not part of the judgement
    assert "PASSED" in judge(small.gates, HONEST).to_markdown()


def test_a_report_that_is_not_there_or_damaged_is_an_error_of_one_line(tmp_path) -> None:
    for content in (None, "{", '{"verdicts": []}', '{"profile": 1, "verdicts": [{}]}'):
        if content is not None:
            (tmp_path / "gate_report.json").write_text(content)
        with pytest.raises(PackagingError, match="no gate report; run `churn gates` first"):
            GateReport.read(tmp_path)


WHEN = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_a_person_overrides_with_a_reason_and_it_stays_on_record(small: Settings, tmp_path) -> None:
    refused_one = sampled(score=spoilt(SAMPLE.segments["plan"].code == 2))
    failed = {verdict.rule for verdict in judge(small.gates, refused_one).failures}
    decisions = tuple(
        Override.by("ada", WHEN, rule, "plan c is closed | next week")
        for rule in sorted({name.split(".")[0] for name in failed})
    )
    report = judge(small.gates, refused_one, decisions)
    files = Workspace(tmp_path)
    write_report(report, files)
    text = (files.gate_report / "gate_report.md").read_text()

    assert report.passed and report.state == "overridden"
    assert {verdict.rule for verdict in report.failures} == failed and report.refusals == ()
    assert GateReport.read(files.gate_report) == replace(report, measurements={})
    assert "# Gate report: OVERRIDDEN" in text
    assert "| worst_segment | ada | 2026-11-22T12:00:00+00:00 | plan c is closed / next week |" in text


@pytest.mark.parametrize(
    ("rule", "reason", "message"),
    [
        ("worst_segment", "  ", "give a --reason"),
        ("parity", "trust me", "cannot be overridden"),
        ("evidence", "trust me", "cannot be overridden"),
        ("leak", "not needed", "no such failed rule; .*worst_segment"),
        ("nonsense", "because", "no such failed rule"),
    ],
)
def test_an_override_without_an_effect_is_refused(
    small: Settings, rule: str, reason: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        judge(
            small.gates,
            replace(HONEST, sample=replace(SAMPLE, score=spoilt(SAMPLE.segments["plan"].code == 2))),
            (Override.by("ada", WHEN, rule, reason),),
        )
