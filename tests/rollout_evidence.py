"""Evidence as an observer would tell it, for tests of rules."""

from dataclasses import replace
from typing import Any

import numpy as np

from rollout.evidence import Arm, Evidence, Labelled, Window


def arm(requests: int = 1000, **known: Any) -> Arm:
    return Arm(requests=requests, customers=known.pop("customers", requests), **known)


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
