"""The models: registered versions, refused ones, the newest training beside its baselines, and its gates."""

from typing import Any

import numpy as np

from pipelines.report.blocks import Block, Cell, Figure, Figures, Section, Table, Text, number, words
from pipelines.report.facts import Facts
from pipelines.report.run_page import COLUMNS, model_rows
from pipelines.report.svg import Series, line_chart, numeric_axis

BINS = 15
POINTS = 100


def section(facts: Facts) -> Section:
    """Versions, the newest first, with the numbers that were recorded when they were registered."""
    if not facts.versions and not facts.refused:
        return Section("models", "Models", [Text("No model has been registered yet.")])
    registered = {made.version: made for made in facts.registry if made.action == "challenge"}
    names = {
        one.number: ", ".join(sorted(a for a, n in (facts.aliases or {}).items() if n == one.number))
        for one in facts.versions
    }
    rows = []
    for version in facts.versions:
        made = registered.get(version.number)
        measured = made.numbers if made else {}
        rows.append(
            [
                Cell(version.number),
                Cell(version.tags.get("model_version", "")),
                Cell(names[version.number] or "–"),
                Cell(made.when[:16].replace("T", " ") if made else "–"),
                Cell(version.tags.get("gates", "")),
                number(measured.get("log_loss")),
                number(measured.get("auroc")),
                number(measured.get("ece")),
                Cell(version.tags.get("archive_sha256", "")[:12]),
            ]
        )
    columns = (
        "version",
        "model",
        "alias",
        "registered (UTC)",
        "gates",
        "log loss",
        "AUROC",
        "ECE",
        "archive",
    )
    blocks: list[Block] = [Table("Registered versions", columns, rows)]
    if facts.refused:
        lost = [
            [Cell(f"{one.at:%Y-%m-%d %H:%M}"), Cell(one.failed), Cell(one.run[:12])] for one in facts.refused
        ]
        blocks.append(
            Table("Models that the gates refused", ("when (UTC)", "failed rules", "run"), lost[::-1])
        )
    return Section("models", "Models", blocks)


def newest_training(facts: Facts) -> Section:
    """How the newest model behaves on its test rows, beside the baselines."""
    if facts.training is None:
        return Section("quality", "Newest training", [Text("No model has been trained yet.")])
    rows = [
        [Cell(words(row["name"])), *(number(row[column]) for column in COLUMNS)]
        for row in model_rows(facts.training)
    ]
    columns = ("model", *(words(column) for column in COLUMNS))
    blocks: list[Block] = [Table("The network beside its baselines, on test rows", columns, rows)]
    if facts.scores is not None and len(facts.scores):
        blocks.append(Figures([_calibration(facts.scores), _lift(facts.scores)]))
    return Section("quality", "Newest training", blocks)


def gates(facts: Facts) -> Section:
    """The newest gate report."""
    if facts.gates is None:
        return Section("gates", "Gates", [Text("No model has been judged yet.")])
    rows = [
        [
            Cell(words(rule["rule"])),
            Cell("holds" if rule["passed"] else "fails", "good" if rule["passed"] else "bad"),
            Cell(rule["reason"]),
        ]
        for rule in facts.gates["verdicts"]
    ]
    passed = facts.gates["passed"]
    verdict = Text(
        f"Profile {facts.gates['profile']}: {'passed' if passed else 'refused'}.", "good" if passed else "bad"
    )
    overridden = [
        Text(f"{one['rule']} was overridden by {one['who']}, {one['when']}: {one['reason']}", "warn")
        for one in facts.gates["overrides"]
    ]
    return Section("gates", "Gates", [verdict, *overridden, Table("Rules", ("rule", "verdict", "why"), rows)])


def _calibration(scores: Any) -> Figure:
    y, score = scores["churned"].to_numpy(dtype=float), scores["score"].to_numpy()
    chunks = [part for part in np.array_split(np.argsort(score, kind="stable"), BINS) if len(part)]
    points = [(float(score[part].mean()), float(y[part].mean())) for part in chunks]
    axis = numeric_axis("predicted churn", [0.0, 1.0], ".2f")
    svg = line_chart(
        "Calibration",
        f"Observed against predicted churn in {len(points)} bins of equally many customers.",
        axis,
        axis,
        [
            Series("ideal", [(0, 0), (1, 1)], "soft"),
            Series("observed churn", points, "a", with_marks=True),
        ],
    )
    return Figure(svg, "Observed churn by predicted churn, in bins of equally many customers.")


def _lift(scores: Any) -> Figure:
    y, score = scores["churned"].to_numpy(dtype=float), scores["score"].to_numpy()
    ranked = y[np.argsort(-score, kind="stable")]
    found = np.cumsum(ranked) / max(ranked.sum(), 1)
    places = np.unique(np.linspace(0, len(ranked) - 1, POINTS).astype(int))
    points = [(float((place + 1) / len(ranked)), float(found[place])) for place in places]
    svg = line_chart(
        "Customers found",
        "Share of the churned customers among those ranked first.",
        numeric_axis("share of customers contacted", [0.0, 1.0], ".2f"),
        numeric_axis("", [0.0, 1.0], ".2f"),
        [Series("any order", [(0, 0), (1, 1)], "soft"), Series("share of churn found", points, "a")],
    )
    return Figure(svg, "Share of all churned customers that are among the customers ranked first.")
