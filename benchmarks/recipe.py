"""Whether the shipped recipe holds on tables of many kinds, with nothing set by hand.

    python -m benchmarks.recipe [--data mlc_churn noise ...] [--rivals lightgbm ...] [--out var/bench/recipe]

Each table of `benchmarks/tables.py` is judged by five stratified folds below 10,000 rows, else by a fifth of
its rows, in one split a seed. Rivals run as they come. Intervals are of the difference in log-loss (rival
minus ours: above zero is in our favour), by a paired bootstrap over rows. The rivals are in an extra:
pip install -e '.[bench]'. Results: a table, and recipe.json and recipe.md in --out, where a table that is
not asked for keeps its last figures. Rivals' scores are kept there too, since the same rows and seeds give
them again; `--fresh` does them anew.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Printed
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.quality import OURS, Judged, Part, Scores, matrices, ours, summary
from benchmarks.rivals import RIVALS, fitted_scores
from benchmarks.tables import NAMES, Table, load
from churn.settings import Settings, load_settings
from training.split import Split

ROOT = Path(__file__).resolve().parent.parent
FOLDED_BELOW = 10_000
"""Rows; a fifth of a larger table judges well enough."""
DEFAULT_RIVALS = ("logistic_regression", "lightgbm", "catboost")
Results = dict[str, dict[str, dict[str, float]]]
out = Console()


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in options.data:
        table = load(name)
        judged = Judged()
        for part in parts(table, load_settings(), options):
            judge(part, judged, options)
        results = save({name: described(table, judged)}, options.out)
    show(results)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=NAMES, default=NAMES, metavar="TABLE")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=DEFAULT_RIVALS)
    parser.add_argument("--seeds", type=int, default=1, help="splits of a table of 10,000 rows or more")
    parser.add_argument("--folds", type=int, default=5, help="judge on so many of the five")
    parser.add_argument("--fresh", action="store_true", help="fit the rivals anew too")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench" / "recipe")
    return parser.parse_args()


def parts(table: Table, settings: Settings, options: argparse.Namespace) -> Iterator[Part]:
    settings = settings.model_copy(update={"features": table.spec})
    churned = table.rows["churned"].to_numpy()
    if len(churned) < FOLDED_BELOW:
        folds = StratifiedKFold(5, shuffle=True, random_state=42).split(churned, churned)
        splits = list(folds)[: options.folds]
    else:
        every = np.arange(len(churned))
        splits = [
            train_test_split(every, test_size=0.2, stratify=churned, random_state=seed)
            for seed in range(options.seeds)
        ]
    for number, (train, test) in enumerate(splits):
        yield Part(
            f"{table.name}-{number}", table.rows, Split(train, test, train, test), settings, "labelled"
        )


def judge(part: Part, judged: Judged, options: argparse.Namespace) -> None:
    test = part.rows.iloc[part.split.test]
    judged.churned.append(test["churned"].to_numpy(dtype=np.int64))
    judged.customer.append(test["user_id"].to_numpy())
    judged.add(OURS, *_timed(lambda: ours(part, seed=0)))
    for name in options.rivals:
        kept = options.out / "rivals" / f"{part.name}-{name}.npz"
        judged.add(name, *_kept(kept, options.fresh, lambda name=name: _rival(name, part)))


def _rival(name: str, part: Part) -> Scores:
    return fitted_scores(name, {}, matrices(part, inner=False), seed=0)


def _timed(run: Callable[[], NDArray[np.float64]]) -> tuple[Scores, float]:
    start = time.perf_counter()
    scores = run()
    return scores[None], time.perf_counter() - start


def _kept(file: Path, fresh: bool, run: Callable[[], Scores]) -> tuple[Scores, float]:
    if fresh or not file.is_file():
        scores, seconds = _timed(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, scores=scores, seconds=seconds)
    with np.load(file) as content:
        return content["scores"], float(content["seconds"])


def described(table: Table, judged: Judged) -> dict[str, dict[str, float]]:
    found = summary(judged)
    for model in found.values():
        model["table_rows"] = len(table.rows)
        model["churn"] = float(table.rows["churned"].mean())
    return found


def save(found: Results, folder: Path) -> Results:
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "recipe.json"
    results: Results = (json.loads(kept.read_text()) if kept.is_file() else {}) | found
    kept.write_text(json.dumps(results, indent=1))
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for name in results for row in _rows(name, results[name])]
    (folder / "recipe.md").write_text("\n".join(lines) + "\n")
    return results


COLUMNS = ("table", "rows", "churn", "model", "AUROC", "log-loss", "log-loss minus ours [95 %]", "s a fit")


def _rows(name: str, models: dict[str, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    """A row a model, the best first."""
    for model, found in models.items():
        against = "" if model == OURS else "{difference:+.4f} [{low:+.4f}, {high:+.4f}]".format(**found)
        yield (
            name,
            f"{found['table_rows']:,.0f}",
            f"{found['churn']:.1%}",
            model,
            f"{found['auroc']:.4f}",
            f"{found['log_loss']:.4f}",
            against,
            f"{found['seconds']:.1f}",
        )


def show(results: Results) -> None:
    table = Printed(*COLUMNS, title="log-loss of the shipped recipe and of its rivals as they come")
    for name, models in results.items():
        for number, row in enumerate(_rows(name, models)):
            table.add_row(row[0] if not number else "", *row[1:], style="bold" if OURS in row else None)
        table.add_section()
    out.print(table)


if __name__ == "__main__":
    main()
