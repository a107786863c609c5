"""Evidence as an observer would tell it, for tests of rules."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from rollout.evidence import Arm, Blocks, Evidence, Labelled, Window


def arm(requests: int = 1000, **known: Any) -> Arm:
    return Arm(requests=requests, customers=known.pop("customers", requests), **known)


EDGES = (5.0, 10.0, 14.0, 20.0, 28.0, 40.0, 56.0, 80.0, 110.0, 160.0, 250.0, 500.0, 1000.0, math.inf)


def timed(took_ms: Any, blocks: int = 40, errors: Any = None, **known: Any) -> Arm:
    """Requests in the order of time, cut into blocks of equal size; `errors`: [requests] 0 or 1."""
    took = np.asarray(took_ms, dtype=np.float64)
    failed = np.zeros(len(took)) if errors is None else np.asarray(errors, dtype=np.float64)
    parts, failures = np.array_split(took, blocks), np.array_split(failed, blocks)
    within = np.array([[(part <= edge).sum() for edge in EDGES] for part in parts], dtype=np.float64)
    counts = np.array([float(len(part)) for part in parts])
    return arm(
        len(took),
        errors=int(failed.sum()),
        slow=int((took > 250).sum()),
        p99_ms=float(np.quantile(took, 0.99)),
        latency_ms={edge: int((took <= edge).sum()) for edge in EDGES},
        blocks=Blocks(counts, np.array([part.sum() for part in failures]), EDGES, within),
        **known,
    )


def lognormal(seed: int, requests: int, mean_ms: float, sigma: float = 0.6) -> Any:
    return mean_ms * np.random.default_rng(seed).lognormal(0, sigma, requests)


def seen(stable: Arm, canary: Arm, weight: int = 50, **known: Any) -> Evidence:
    return Evidence((Window(weight, stable=stable, canary=canary, **known),))


def then(first: Evidence, *more: Evidence) -> Evidence:
    return Evidence((*first.windows, *(window for one in more for window in one.windows)))


def scored(scores: Any, **known: Any) -> Arm:
    scores = np.asarray(scores, dtype=np.float64)
    return arm(len(scores), scores=scores, high_risk=int((scores >= 0.5).sum()), **known)


def labelled(scores: Any, churned: Any) -> Arm:
    scores = np.asarray(scores, dtype=np.float64)
    return replace(scored(scores), labelled=Labelled(scores, np.asarray(churned, dtype=np.float64)))


def beta_scores(seed: int, rows: int, shift: float = 0.0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).beta(2, 5, rows) + shift, 0, 1)
