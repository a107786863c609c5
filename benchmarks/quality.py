"""How good the scores are: ours and its tuned rivals on the same rows, with the same information.

    python -m benchmarks.quality [--quick] [--data cdnow telco ...] [--out var/bench/quality]
    python -m benchmarks.quality --develop --label before     # then change the code, and
    python -m benchmarks.quality --develop --label after      # compare, on CDNOW, Telco and made data only

Ours is `training.learn.fit.fit` by config alone: the shipped configs, nothing set by hand, no study. A rival
tries
--trials settings on inner folds (benchmarks/contests.py: forward in time for a log), once a data set, on the
first outer fold's training rows; the settings serve all outer folds, which on tables favours rivals a little.
Every model is fitted with --seeds seeds; a rival's scores averaged over them are a row of their own, since
ours averages several networks. Intervals: benchmarks/differences.py. Two processes of one thread each; each
model's scores are saved when it is done, so that the same command continues after a stop; results that depend
on changed code or rows are computed again. The rivals are in an extra: pip install -e '.[bench]'.
Results: tables, and quality.json, quality.md and quality.png in --out.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import contests
from benchmarks.contests import ALL, DEVELOPED, NAMES, ROOT, TELCO
from benchmarks.entrants import BG_NBD, OURS, Job, prepare, run
from benchmarks.quality_report import save, scored, show, summary
from benchmarks.rivals import RIVALS

DEFAULT_RIVALS = ("logistic_regression", "random_forest", "lightgbm", "xgboost", "catboost", BG_NBD)
DEVELOP_RIVALS = ("logistic_regression", "lightgbm", "catboost")
DEVELOP = ("telco", "cdnow", "retail", "christmas", "weekly", "categories", "linear", "noise", "cities")
out = Console()


def main() -> None:
    options = parse_arguments()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    warnings.filterwarnings("ignore")
    failed = 0
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        ready = {pool.submit(prepare, name, options.out, options.telco): name for name in options.data}
        names = [ready[future] for future in as_completed(ready) if _done(ready[future], future)]
        # in the given order, so that the first results are those of the first data set
        jobs = {pool.submit(run, job): job for name in options.data if name in names
                for job in _jobs(name, options)}  # fmt: skip
        results = scored(options.out, _ours(options), _folds(options))
        for future in as_completed(jobs):
            data = jobs[future].data
            failed += not _done(f"{data}: {jobs[future].model}", future)
            if found := summary(data, options.out, _ours(options), _folds(options)):
                results[data] = found
                save(results, options.out)
    show(scored(options.out, _ours(options), _folds(options)))
    if failed:
        sys.exit(f"{failed} fits failed; the same command tries them again")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rivals", nargs="*", choices=[*RIVALS, BG_NBD], metavar="RIVAL")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10, help="of every rival")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, two trials, one outer fold")
    parser.add_argument("--develop", action="store_true", help="only data that settings may be chosen on")
    parser.add_argument("--rivals-only", action="store_true", help="ours is fitted by a later run")
    parser.add_argument("--label", default="", help="ours is saved under this name beside earlier ones")
    parser.add_argument("--telco", type=Path, default=TELCO)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.data = options.data or (DEVELOP if options.develop else ALL)
    if options.rivals is None:
        options.rivals = DEVELOP_RIVALS if options.develop else DEFAULT_RIVALS
    if options.develop and (unseen := sorted(set(options.data) - set(DEVELOPED))):
        parser.error(f"--develop: {', '.join(unseen)} must stay unseen; choose from {', '.join(DEVELOPED)}")
    folder = "quick" if options.quick else "develop" if options.develop else "quality"
    options.out = options.out or ROOT / "var" / "bench" / folder
    if options.quick:
        options.seeds, options.trials = 1, 2
    return options


def _jobs(name: str, options: argparse.Namespace) -> Iterator[Job]:
    is_log = name in contests.logs.names()
    ours = () if options.rivals_only else (_ours(options),)
    for model in (*ours, *options.rivals):
        if model != BG_NBD or is_log:
            yield Job(name, model, options.seeds, options.trials, _folds(options), options.out)


def _folds(options: argparse.Namespace) -> int | None:
    """Outer folds that judge; None: all."""
    return 1 if options.quick else None


def _ours(options: argparse.Namespace) -> str:
    return f"{OURS} {options.label}".strip()


def _done(what: str, future: "Future[Any]") -> bool:
    """Whether the task ended without an error; the outcome is printed."""
    try:
        found = future.result()
    except Exception as error:
        out.print(f"{what}: {type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        return False
    if found is False:
        out.print(f"{what}: left out, its package or file is not there", style="yellow", markup=False)
        return False
    done = "rows" if found is True else f"{found:.0f} s"
    out.print(f"{what}: {done}", style="dim", markup=False, highlight=False)
    return True


if __name__ == "__main__":
    main()
