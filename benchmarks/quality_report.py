"""The quality benchmark's results as JSON, as tables and as a picture; made from the saved scores alone."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.contests import DEVELOPED, NAMES, Contest
from benchmarks.differences import compare, losses, losses_of_average
from benchmarks.entrants import OURS, contest_file, scores_file
from training.learn.metrics import evaluate

AVERAGED = ", averaged"
METRICS = ("log_loss", "auroc", "brier", "ece")
Results = dict[str, dict[str, Any]]
out = Console(width=None if sys.stdout.isatty() else 150)


def scored(folder: Path, ours: str, folds: int | None) -> Results:
    """Summaries of all data sets that have scores in `folder`, in the order of the benchmark."""
    known = [name for name in NAMES if contest_file(folder, name).is_file()]
    return {name: found for name in known if (found := summary(name, folder, ours, folds))}


def save(results: Results, folder: Path) -> None:
    """quality.json, quality.md and quality.png in `folder`."""
    (folder / "quality.json").write_text(json.dumps(results, indent=1))
    (folder / "quality.md").write_text(markdown(results))
    if results:
        plot(results, folder / "quality.png")


def summary(data: str, folder: Path, ours: str, folds: int | None) -> dict[str, Any] | None:
    """Facts of the data set and, of each model, its metrics and its difference to `ours`."""
    if not scores_file(folder, data, ours).is_file():
        return None
    contest = Contest.read(contest_file(folder, data))
    test = contest.test(folds)
    churned = test["churned"].to_numpy(dtype=np.int64)
    customer = pd.factorize(test["user_id"])[0].astype(np.int64)
    models: dict[str, dict[str, Any]] = {}
    reference = _losses_of_ours(data, folder, ours, contest.test_digest(folds), churned)
    if reference is None:
        return None
    for file in sorted(scores_file(folder, data, ours).parent.glob("*.npz")):
        if file.name.endswith(".partial.npz"):
            continue
        with np.load(file) as content:
            if str(content["test"]) != contest.test_digest(folds):
                continue
            scores, settings = content["scores"], json.loads(str(content["given"]))
            seconds = {name: float(content[name]) for name in ("seconds", "seconds_tuning")}
        models[file.stem] = _of_model(churned, customer, scores, reference, file.stem != ours) | {
            **seconds,
            "settings": settings,
        }
        if len(scores) > 1 and not file.stem.startswith(OURS):
            averaged = losses_of_average(churned, scores)
            found = evaluate(churned, scores.mean(axis=0))
            against = _against(reference, averaged, customer)
            models[file.stem + AVERAGED] = {**_metrics([found]), **against, "seeds": len(scores)}
    return {
        "shape": contest.shape,
        "developed_on": data in DEVELOPED,
        "training_rows": len(contest.judged[0][0]),
        "test_rows": len(test),
        "test_customers": int(customer.max()) + 1,
        "churn": float(churned.mean()),
        "ours": ours,
        "models": dict(sorted(models.items(), key=lambda item: item[1]["log_loss"])),
    }


def _losses_of_ours(
    data: str, folder: Path, ours: str, test: str, churned: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    with np.load(scores_file(folder, data, ours)) as content:
        return losses(churned, content["scores"]) if str(content["test"]) == test else None


def _of_model(
    churned: NDArray[np.int64],
    customer: NDArray[np.int64],
    scores: NDArray[np.float64],
    reference: NDArray[np.float64],
    rival: bool,
) -> dict[str, Any]:
    found = _metrics([evaluate(churned, one) for one in scores])
    against = _against(reference, losses(churned, scores), customer) if rival else {}
    return {**found, **against, "seeds": len(scores)}


def _against(
    reference: NDArray[np.float64], rival: NDArray[np.float64], customer: NDArray[np.int64]
) -> dict[str, Any]:
    verdict = compare(reference, rival, customer)
    return {
        "difference": verdict.difference,
        "low": verdict.low,
        "high": verdict.high,
        "verdict": verdict.word,
    }


def _metrics(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([f[name] for f in found])) for name in METRICS}


def rival_of(models: dict[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The rival that counts: averaged over its seeds where it has several."""
    return models.get(name + AVERAGED) or models.get(name)


def rivals_in(results: Results) -> list[str]:
    names = {name for found in results.values() for name in found["models"]}
    return sorted(name for name in names if not name.endswith(AVERAGED) and not name.startswith(OURS))


def counts(results: Results, shape: str) -> dict[str, Counter[str]]:
    """Of each rival: wins, ties and losses of ours over the data sets of that shape."""
    found: dict[str, Counter[str]] = {}
    for rival in rivals_in(results):
        judged = [rival_of(r["models"], rival) for r in results.values() if r["shape"] == shape]
        found[rival] = Counter(one["verdict"] for one in judged if one)
    return found


def markdown(results: Results) -> str:
    lines = []
    for shape, title in (("transactions", "Logs"), ("labelled", "Tables")):
        chosen = {name: found for name, found in results.items() if found["shape"] == shape}
        if chosen:
            lines += [f"## {title}", "", *_counted(results, shape), "", *_differences(chosen), ""]
    for name, found in results.items():
        lines += [f"### {name}", "", *_models(found), ""]
    return "\n".join(lines)


def _counted(results: Results, shape: str) -> list[str]:
    rows = [
        f"| {rival} | {one['win']} | {one['tie']} | {one['loss']} |"
        for rival, one in counts(results, shape).items()
    ]
    head = "| rival (tuned, averaged over its seeds) | wins of ours | ties | losses |"
    return [head, "|---|---|---|---|", *rows]


def _differences(chosen: Results) -> list[str]:
    rivals = rivals_in(chosen)
    head = ["data", "training rows", "churn", "log-loss of ours", "ECE", "s a fit", *rivals]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, found in chosen.items():
        ours = found["models"][found["ours"]]
        cells = [name + ("" if found["developed_on"] else " *"), f"{found['training_rows']:,}",
                 f"{found['churn']:.1%}", f"{ours['log_loss']:.4f}", f"{ours['ece']:.3f}",
                 f"{ours['seconds']:.0f}"]  # fmt: skip
        cells += [_cell(rival_of(found["models"], rival)) for rival in rivals]
        lines.append("| " + " | ".join(cells) + " |")
    legend = "`*`: nothing was chosen on it. Cells: log-loss of the rival minus ours, 95 % interval."
    return [*lines, "", legend]


def _cell(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    mark = {"win": "**", "tie": "", "loss": "_"}[found["verdict"]]
    return f"{mark}{found['difference']:+.4f}{mark} [{found['low']:+.4f}, {found['high']:+.4f}]"


COLUMNS = ("model", "log-loss", "AUROC", "Brier", "ECE", "minus ours [95 %]", "s a fit", "s tuning", "seeds")


def _row(model: str, found: dict[str, Any]) -> tuple[str, ...]:
    metrics = (f"{found[name]:.4f}" for name in METRICS)
    against = "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found) if "difference" in found else ""
    seconds = [f"{found[name]:.1f}" if name in found else "" for name in ("seconds", "seconds_tuning")]
    return (model, *metrics, against, *seconds, str(found["seeds"]))


def _models(found: dict[str, Any]) -> list[str]:
    rows = ["| " + " | ".join(_row(model, one)) + " |" for model, one in found["models"].items()]
    return ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS), *rows]


def show(results: Results) -> None:
    for name, found in results.items():
        table = Table(*COLUMNS, title=f"{name}: {found['training_rows']:,} rows, churn {found['churn']:.1%}")
        for model, one in found["models"].items():
            table.add_row(*_row(model, one), style="bold" if model == found["ours"] else None)
        out.print(table)


def plot(results: Results, file: Path) -> None:
    """A panel a rival, a line a data set: right of zero, ours is better."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rivals, names = rivals_in(results), list(reversed(results))
    size = (1.5 + 2.6 * max(len(rivals), 1), 1.2 + 0.28 * len(names))
    figure, axes = plt.subplots(1, max(len(rivals), 1), figsize=size, sharey=True, squeeze=False)
    colours = {"win": "C2", "tie": "0.45", "loss": "C3"}
    for axis, rival in zip(axes[0], rivals, strict=False):
        for height, name in enumerate(names):
            if found := rival_of(results[name]["models"], rival):
                colour = colours[found["verdict"]]
                axis.plot([found["low"], found["high"]], [height, height], color=colour)
                axis.plot(found["difference"], height, "o", color=colour, markersize=4)
        axis.axvline(0, color="k", linewidth=0.8)
        axis.set_xscale("symlog", linthresh=0.005)
        ticks = [-0.05, -0.005, 0, 0.005, 0.05]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7)
        axis.set_xlim(-0.1, 0.3)
        axis.set_title(rival, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=8)
    figure.suptitle("log-loss of the tuned rival minus ours (right: ours is better)", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=130)
    plt.close(figure)
