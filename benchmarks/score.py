"""Batch scoring: customers a second on one core with the features in memory, and memory as customers grow.

    make bench-score                                   # of the newest archive in var/
    make bench-score ARGS="--rows 1 3 10 --rounds 5"

Synthetic customers of the real spec: each feature drawn from the training rows' own values. Ours is what
`churn score` does to a batch (columns, encoding, the program in the calls it chose, expected value); the peer
is the same program in one bare call a batch, on rows that are encoded already: the least that it can cost.
Rounds are interleaved. Memory is the peak of a child process that scores, sorts and writes N million rows.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch

from core.workspace import Workspace
from handlers.bundle import Bundle, read_bundle
from handlers.scoring.encoding import encode
from handlers.scoring.program import Scorer
from model.export import load_program
from pipelines.score import READ_ROWS, model_columns, score_batch
from serving.offline.bulk import BulkScorer
from serving.offline.ranked import write_ranked
from training.archive.signing import trusted_signers
from training.archive.verify import verify_archive
from training.config import DecisionConfig

BATCHES = 4
MEGABYTE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=Path("var"))
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 3, 10], help="millions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle, values = _inputs(arguments.workspace, Path(scratch))
        if arguments.child is not None:
            _child(bundle, values, arguments.child)
            return
        _throughput(bundle, values, arguments.rounds)
    for millions in arguments.rows:
        _memory(arguments.workspace, millions)


def _throughput(bundle: Bundle, values: pa.Table, rounds: int) -> None:
    batches = list(_customers(values, bundle, BATCHES * READ_ROWS))
    scorer, bare = BulkScorer(bundle), load_program(bundle.program)
    served = Scorer(bundle.program, bundle.numeric, bundle.vocabulary)
    decision = DecisionConfig()
    rows = sum(batch.num_rows for batch in batches)
    encoded = [encode(model_columns(b, bundle.spec), bundle.numeric, bundle.vocabulary) for b in batches]
    size = scorer.sizes[0] if scorer.sizes else 64

    def ours() -> None:
        for batch in batches:
            score_batch(batch, scorer, bundle, decision)

    def peer() -> None:
        with torch.inference_mode():
            for numbers, codes in encoded:
                for start in range(0, len(numbers), size):
                    part = slice(start, start + size)
                    bare(torch.from_numpy(numbers[part]), torch.from_numpy(codes[part]))

    def one_by_one() -> None:
        served.score(model_columns(batches[0], bundle.spec))

    timed: dict[str, list[float]] = {"ours": [], "bare program": [], "as served": []}
    for _ in range(rounds):
        timed["ours"].append(rows / _seconds(ours))
        timed["bare program"].append(rows / _seconds(peer))
        timed["as served"].append(batches[0].num_rows / _seconds(one_by_one))
    same = np.array_equal(
        served.score(model_columns(batches[0], bundle.spec)),
        scorer.score(model_columns(batches[0], bundle.spec)),
        equal_nan=True,
    )
    print(f"{rows:,} customers, {len(bundle.inputs)} inputs, one thread, calls of {size} rows")
    print(f"bits equal to the server's calls on {batches[0].num_rows:,} customers: {same}")
    for name, rates in timed.items():
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{name:>14}: {median(rates):10,.0f} customers a CPU second (of {rounds}: {spread})")


def _memory(workspace: Path, millions: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.score", "--workspace", str(workspace)]
    done = subprocess.run(
        [*command, "--child", str(millions * 1_000_000)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{millions:>3} million rows: peak {found['peak_mb']:,.0f} MB ({found['before_mb']:,.0f} MB before "
        f"the first row); {found['seconds']:,.0f} CPU seconds with making, sorting and writing"
    )


def _child(bundle: Bundle, values: pa.Table, rows: int) -> None:
    scorer = BulkScorer(bundle)
    before = _peak_mb()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        batches = (
            score_batch(customers, scorer, bundle, DecisionConfig())
            for customers in _customers(values, bundle, rows)
        )
        write_ranked(batches, Path(folder) / "ranked.parquet")
    seconds = time.process_time() - start
    print(json.dumps({"before_mb": before, "peak_mb": _peak_mb(), "seconds": seconds}))


def _inputs(workspace: Path, scratch: Path) -> tuple[Bundle, pa.Table]:
    """The newest packaged bundle, and real feature values to draw from."""
    import pyarrow.dataset as ds

    files = Workspace(workspace.absolute())
    record = json.loads(files.archive_record.read_text(encoding="utf-8"))
    verify_archive(Path(record["path"]), trusted_signers(None, files)).unpack(scratch)
    bundle = read_bundle(scratch)
    columns = [feature["name"] for feature in bundle.spec["features"]]
    return bundle, ds.dataset(files.snapshots).head(20_000, columns=columns)


def _customers(values: pa.Table, bundle: Bundle, rows: int) -> Iterator[pa.RecordBatch]:
    """Synthetic batches, made when they are read: each feature is drawn independently, so no two are
    equal."""
    random = np.random.default_rng(0)
    names = [feature["name"] for feature in bundle.spec["features"]]
    columns = [values[name].combine_chunks() for name in names]
    for start in range(0, rows, READ_ROWS):
        count = min(READ_ROWS, rows - start)
        drawn = [column.take(pa.array(random.integers(0, len(column), count))) for column in columns]
        digits = np.char.zfill((np.arange(start, start + count) * 2_654_435_761 % 2**32).astype(str), 32)
        ids = pa.array(np.char.add("u_", digits).astype(object), pa.string())
        yield pa.RecordBatch.from_arrays([ids, *drawn], ["user_id", *names])


def _seconds(what: Callable[[], None]) -> float:
    """Of this process on its core: what others do on the machine counts less than it would by the wall."""
    start = time.process_time()
    what()
    return time.process_time() - start


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE


if __name__ == "__main__":
    main()
