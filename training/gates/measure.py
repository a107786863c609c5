"""Measures the candidate archive as a server would load it: size, prediction time, and program digest."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from handlers.bundle import read_bundle
from handlers.scoring.program import CHUNK, Scorer
from training.archive.verify import Verified

BATCHES, WARM_UP = 100, 5


@dataclass(frozen=True)
class Measured:
    """Measurements of a candidate archive."""

    program_sha256: str
    megabytes: float
    p50_ms: float
    p95_ms: float
    """`p50_ms`, `p95_ms`: of a batch of CHUNK customers on one thread, as in a TorchServe worker."""


def measure(archive: Verified, rows: pd.DataFrame) -> Measured:
    """Unpacks the verified candidate, checks its bundle and times its program on `rows`.

    Raises BundleError, or an error of torch, for an archive that a server could not load.
    """
    with TemporaryDirectory() as scratch:
        folder = archive.unpack(Path(scratch))
        bundle = read_bundle(folder)
        scorer = Scorer(bundle.program, bundle.numeric, bundle.vocabulary)
        digest = hashlib.sha256(bundle.program.read_bytes()).hexdigest()
    batch = {name: rows[name].to_numpy()[:CHUNK] for name in bundle.inputs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as handlers/churn_handler.py does
    try:
        seconds = [_timed(scorer, batch) for _ in range(WARM_UP + BATCHES)][WARM_UP:]
    finally:
        torch.set_num_threads(threads)
    p50, p95 = np.quantile(seconds, [0.5, 0.95]) * 1000
    return Measured(digest, len(archive.content) / 1e6, float(p50), float(p95))


def _timed(scorer: Scorer, batch: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    scorer.score(batch)
    return time.perf_counter() - start
