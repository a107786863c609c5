"""The model card: intended use, quality overall and by segment, and limits.

After Mitchell et al. (2019), "Model Cards for Model Reporting", FAT* 2019; every number comes from the
files of this run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.config import DecisionConfig, ValueColumn
from training.decision_value import break_even, typical_value
from training.evaluate.appraisal import read_appraisal
from training.gates import GateReport
from training.learn.resolved import FitRecord
from training.trained import TrainedModel

SHOWN = ("log_loss", "auroc", "auprc", "brier", "ece")
WORST = 5


def model_card(model: TrainedModel, report: GateReport, lineage: Mapping[str, str]) -> str:
    """The model card as Markdown. Raises OSError if a file of the run is missing."""
    files, spec = model.files, model.settings.spec
    manifest = _read(files.manifest)
    result = _read(files.training / "metrics.json")
    breakdown = _read(files.gate_report / "breakdown.json")
    appraisal = read_appraisal(files.training)
    window = manifest["window"]
    return "\n".join(
        [
            f"# Model card: {model.settings.training.model_name}",
            "",
            f"Probability that a customer churns: the label is defined by the data, with a horizon of "
            f"{spec.horizon_days} days where it is derived from purchases.",
            "",
            "## Use",
            "",
            "Ranking customers for a retention offer, and pricing that offer. Each score is meant as a "
            "frequency. Not meant for decisions about a person's rights or prices, nor for customers without "
            "a row in the feature store.",
            *_value(model.decision),
            "",
            "## Data",
            "",
            f"{window['start'][:10]} to {window['end'][:10]}; {result['rows']['train']:,} training rows, "
            f"{result['rows']['test']:,} test rows ({result['split']}). Inputs: "
            f"{', '.join((*spec.numeric, *spec.categorical))}.",
            "",
            "## Quality on the test rows",
            "",
            *_table(
                ("model", *SHOWN),
                [("network", *_numbers(result["metrics"]))]
                + [(name, *_numbers(metrics)) for name, metrics in result["baselines"].items()],
            ),
            *_breakdown(breakdown),
            *_cross_validation(appraisal["cross_validation"]),
            *_importance(appraisal["importance"]),
            "",
            f"## Gates: {report.state}",
            "",
            f"{len(report.verdicts) - len(report.failures)} of {len(report.verdicts)} checks of profile "
            f"`{report.profile}` hold.",
            *(f"- {verdict.rule}: {verdict.reason}" for verdict in report.failures),
            *(f"- overridden by {o.who}, {o.when}: {o.rule}, {o.reason}" for o in report.overrides),
            "",
            "## Configuration",
            "",
            "As it was used: settings that were not given depend on the rows (training/learn/recipe.py, "
            "training/learn/stacking.py).",
            "",
            *_table(("setting", "value"), FitRecord.read(files.training).params().items()),
            "",
            "## Limits",
            "",
            "Judged on the past: a change of assortment, prices or season shows in monitoring before "
            "it shows here. Segments of few rows are not judged. The only input is a customer's record.",
            "",
            "## Lineage",
            "",
            *_table(("what", "value"), lineage.items()),
            "",
        ]
    )


def _value(decision: DecisionConfig) -> list[str]:
    value = decision.customer_value
    column = f" The value is `{value.column}` where it is known." if isinstance(value, ValueColumn) else ""
    return [
        "",
        f"An offer of {decision.offer_cost:g} to a customer of value {typical_value(decision):g}, taken "
        f"by {decision.acceptance_rate:.0%} of those who would leave, pays above a churn probability of "
        f"{break_even(decision):.3f}.{column}",
    ]


def _breakdown(breakdown: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    periods = breakdown.get("period", {})
    parts = [
        (f"{division} {part}", metrics)
        for division, found in breakdown.items()
        if division != "period"
        for part, metrics in found.items()
        if metrics["ece"] is not None
    ]
    parts.sort(key=lambda part: -part[1]["ece"])
    columns = ("part", "rows", "churned", *SHOWN)
    lines = []
    if periods:
        lines += ["", "By period:", "", *_table(columns, [_part(name, m) for name, m in periods.items()])]
    if parts:
        lines += ["", f"The {min(WORST, len(parts))} segments with the largest calibration error:", ""]
        lines += _table(columns, [_part(name, metrics) for name, metrics in parts[:WORST]])
    return lines


def _cross_validation(check: Mapping[str, Any] | None) -> list[str]:
    if check is None:
        return []
    spread = {name: value for name, value in check["spread"].items() if value is not None}
    rows = [
        (fold["name"], f"{fold['learned_rows']:,}", f"{fold['judged_rows']:,}", *_numbers(fold["metrics"]))
        for fold in check["folds"]
    ]
    rows += [("mean", "", "", *_numbers(check["mean"])), ("standard deviation", "", "", *_numbers(spread))]
    return [
        "",
        f"## {check['method'].capitalize()}",
        "",
        "One member of the network a fold, with the settings of this model, trained on rows that are not "
        "in the fold.",
        "",
        *_table(("judged on", "rows learned", "rows judged", *SHOWN), rows),
    ]


def _importance(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    rows = [
        (f"`{one['feature']}`", f"{one['increase']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}")
        for one in found
    ]
    return [
        "",
        "## Importance of the features",
        "",
        "By how much log-loss on test rows rises when a feature's values are exchanged between customers "
        "(permutation importance). Of strongly correlated features, each may have a low importance.",
        "",
        *_table(("feature", "increase of log-loss", "95 % interval"), rows),
    ]


def _part(name: str, metrics: Mapping[str, Any]) -> tuple[str, ...]:
    churned = metrics["base_rate"]
    share = "–" if churned is None else f"{churned:.1%}"
    return (name, f"{metrics['rows']:,.0f}", share, *_numbers(metrics))


def _numbers(metrics: Mapping[str, Any]) -> list[str]:
    return ["–" if metrics.get(name) is None else f"{metrics[name]:.4f}" for name in SHOWN]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows),
    ]


def _read(file: Any) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
