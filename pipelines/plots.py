"""The report's plots, each a self-contained SVG."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from training.config import DecisionConfig
from training.decision_value import break_even, profit_curve, values_of_scores

Scores = npt.NDArray[np.float64]

NETWORK, GREY, WARN = "#1f5fbf", "#8a94a3", "#c2410c"
BASELINES = ("#94a3b8", "#0f9d76", "#b7791f", "#7c5cc4", "#b0413e")
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#cbd5e1",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef2f7",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "churn",  # equal inputs, equal bytes
}


def roc(y: Scores, scores: Mapping[str, Scores]) -> str:
    """True against false positive rate of every model, the first one emphasised."""
    figure, axes = canvas(
        "ROC: customers found, by false alarms", "false positive rate", "true positive rate"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for index, (name, score) in reversed(list(enumerate(scores.items()))):
        if np.ptp(score) == 0:
            continue
        false_rate, true_rate, _ = roc_curve(y, score)
        keep = np.unique(np.linspace(0, len(false_rate) - 1, 200).astype(int))
        axes.plot(false_rate[keep], true_rate[keep], label=_label(name), **_line(index))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize=8, loc="lower right")
    return svg(figure)


def calibration(y: Scores, score: Scores, bins: int = 15) -> str:
    """Observed churn in bins of equally many customers against what was predicted."""
    figure, axes = canvas("Calibration: promised against observed", "predicted churn", "observed churn")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    chunks = [chunk for chunk in np.array_split(np.argsort(score, kind="stable"), bins) if len(chunk)]
    predicted = np.array([score[chunk].mean() for chunk in chunks])
    observed = np.array([y[chunk].mean() for chunk in chunks])
    spread = 1.96 * np.sqrt(observed * (1 - observed) / [len(chunk) for chunk in chunks])
    axes.errorbar(
        predicted, observed, yerr=spread, color=NETWORK, marker="o", markersize=4, linewidth=1.2, capsize=2
    )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return svg(figure)


def lift(y: Scores, score: Scores) -> str:
    """How many times the base rate is found among the customers ranked first."""
    figure, axes = canvas(
        "Lift: churn among the customers ranked first", "share of customers contacted", "times the base rate"
    )
    ranked = y[np.argsort(-score, kind="stable")]
    share = np.arange(1, len(ranked) + 1) / len(ranked)
    gain = np.cumsum(ranked) / np.arange(1, len(ranked) + 1) / max(y.mean(), 1e-12)
    keep = np.unique(np.geomspace(max(len(ranked) // 200, 1), len(ranked), 200).astype(int)) - 1
    axes.plot(share[keep], gain[keep], color=NETWORK, linewidth=1.8)
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axes.axhline(1 / max(y.mean(), 1e-12), color=GREY, linewidth=0.8, linestyle="--")
    axes.annotate(
        "best possible at first",
        (1, 1 / max(y.mean(), 1e-12)),
        ha="right",
        va="bottom",
        fontsize=8,
        color=GREY,
    )
    return svg(figure)


def histogram(y: Scores, score: Scores, threshold: float) -> str:
    """Scores of those who churned and those who stayed."""
    figure, axes = canvas("Scores: who churned, who stayed", "predicted churn", "customers")
    bins = np.linspace(0, 1, 41)
    axes.hist(
        [score[y == 1], score[y == 0]],
        bins=bins,
        stacked=True,
        color=[NETWORK, "#a7c4ee"],
        label=["churned", "stayed"],
    )
    axes.axvline(threshold, color=WARN, linewidth=1, linestyle="--", label=f"threshold {threshold:g}")
    axes.legend(fontsize=8)
    return svg(figure)


def profit(y: Scores, score: Scores, decision: DecisionConfig, customer_value: Scores | None = None) -> str:
    """The profit of offers to the customers ranked first, with the position of the threshold."""
    curve = profit_curve(y, score, decision, customer_value)
    figure, axes = canvas(
        "Profit: offers to the customers ranked first", "share of customers contacted", "profit per customer"
    )
    keep = np.unique(np.linspace(0, len(curve.share) - 1, 400).astype(int))
    axes.plot(curve.share[keep], curve.profit[keep], color=NETWORK, linewidth=1.8)
    axes.plot([0, 1], curve.profit[[0, -1]], color=GREY, linewidth=0.8, linestyle=":", label="in any order")
    where = f"above {break_even(decision):.3f}" if customer_value is None else "by each one's worth"
    chosen = f"offers pay {where}: {curve.profit[curve.chosen]:.2f}"
    best = f"best in hindsight: {curve.profit[curve.best]:.2f}"
    axes.axvline(curve.share[curve.chosen], color=WARN, linewidth=1, linestyle="--", label=chosen)
    axes.axvline(curve.share[curve.best], color=GREY, linewidth=1, linestyle="--", label=best)
    axes.legend(fontsize=8, loc="best")
    return svg(figure)


def of_scores(file: Path, decision: DecisionConfig, training_set: Path) -> dict[str, str]:
    """File name -> plot of the network's test scores, stored with the run in MLflow."""
    table = pd.read_parquet(file)
    y, score = table["churned"].to_numpy(dtype=np.float64), table["score"].to_numpy()
    return {
        "calibration.svg": calibration(y, score),
        "roc.svg": roc(y, {"network": score}),
        "lift.svg": lift(y, score),
        "profit.svg": profit(y, score, decision, values_of_scores(table, training_set, decision)),
    }


def drift(table: pd.DataFrame, reference: pd.Timestamp, most: int = 8) -> str:
    """PSI of the features that moved most, snapshot by snapshot, against the newest training snapshot."""
    figure, axes = canvas("Feature drift against the newest training snapshot", "snapshot", "PSI", width=10.6)
    wide = table.pivot(index="event_timestamp", columns="feature", values="psi").clip(lower=1e-3)
    order = wide.loc[wide.index > reference].max().sort_values(ascending=False).index
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for colour, feature in zip(colours, order[:most], strict=False):
        axes.plot(
            wide.index, wide[feature], label=feature, color=colour, linewidth=1.5, marker="o", markersize=2.5
        )
    axes.plot(wide.index, wide[order[most:]].to_numpy(), color="#dbe2ea", linewidth=0.8, zorder=0)
    axes.axhline(0.2, color=WARN, linewidth=0.8, linestyle="--")
    axes.axvline(reference, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yscale("log")  # a young log's tenure moves by tens, a steady feature by hundredths
    axes.set_ylim(1e-3, None)
    axes.annotate("0.2", (wide.index[0], 0.2), fontsize=8, color=WARN, va="bottom")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.autofmt_xdate()
    return svg(figure)


def tuning_history(trials: Sequence[tuple[int, float, bool]]) -> str:
    """(number, log-loss, whether it was completed) of each trial, and the best so far."""
    figure, axes = canvas("Tuning: log-loss on the validation rows", "trial", "log-loss")
    axes.set_axisbelow(True)
    done = [(number, value) for number, value, complete in trials if complete]
    given_up = [(number, value) for number, value, complete in trials if not complete]
    if given_up:
        axes.scatter(*zip(*given_up, strict=True), color=GREY, marker="x", s=18, label="pruned")
    axes.scatter(*zip(*done, strict=True), color=NETWORK, s=18, label="complete")
    best = np.minimum.accumulate([value for _, value in done])
    axes.step([number for number, _ in done], best, where="post", color=NETWORK, linewidth=1.2, label="best")
    # one bad draw must not flatten the rest
    losses = [value for _, value, _ in trials]
    low, middle = min(losses), float(np.median(losses))
    axes.set_ylim(low - 0.1 * max(middle - low, 1e-4), min(max(losses), middle + 4 * (middle - low)) + 1e-4)
    axes.legend(fontsize=8)
    return svg(figure)


def tuning_importances(shares: Mapping[str, float]) -> str:
    """Which settings decided between the better trials and the rest."""
    figure, axes = canvas("Tuning: which settings mattered", "share of the importance", "")
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color=NETWORK, height=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, 1)
    return svg(figure)


def canvas(title: str, x: str, y: str, width: float = 5.2):  # type: ignore[no-untyped-def]
    """An empty figure with one axes, in the style of the report."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x, ylabel=y, title=title)
    return figure, axes


def _line(index: int) -> dict[str, object]:
    if index == 0:
        return {"color": NETWORK, "linewidth": 2.2}
    return {"color": BASELINES[(index - 1) % len(BASELINES)], "linewidth": 1.1}


def _label(name: str) -> str:
    return name.replace("_", " ")


def svg(figure: Figure) -> str:
    """The figure as an SVG; equal figures give equal text."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
