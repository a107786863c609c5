"""What each feature is worth to the model over all customers: permutation importance on the test rows.

A feature's values are exchanged between customers, which leaves it as it is distributed and takes away what
it says of each one; the log-loss rises by what the model had from it (Breiman 2001, Machine Learning 45;
Fisher, Rudin, Dominici 2019, JMLR 20). The unit is the feature as it is stored: features that are derived
from it follow its new values, and so does all that the program makes of it itself. Of two features that say
the same, each may seem worth little.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.spec import FeaturesConfig
from model.program import score
from training.evaluate.bootstrap import Resampling, cluster_sums, resampled
from training.learn.inputs import Inputs
from training.learn.metrics import log_losses
from training.learn.split import hashed

SCORED_ROWS = 60_000
"""Rows that are scored for all features together: about ten seconds with boosted trees in the program, one or
two without. So many test rows are taken for each feature as that allows, those of customers drawn by a hash,
but between LEAST_ROWS and MOST_ROWS."""
LEAST_ROWS = 1_000
MOST_ROWS = 10_000
RESAMPLES = 500

Scorer = Callable[[pd.DataFrame], NDArray[np.float64]]


@dataclass(frozen=True)
class Importance:
    feature: str
    increase: float
    """Of the mean log-loss, in nats, when the feature's values are exchanged."""
    low: float
    high: float
    """95 % interval: a bootstrap of customers."""

    def content(self) -> dict[str, Any]:
        return asdict(self)


def importances(
    program: Any, inputs: Inputs, spec: FeaturesConfig, rows: pd.DataFrame, seed: int
) -> list[Importance]:
    """Of every stored feature of `spec`, the largest first. `program` is the exported one."""
    number = min(max(SCORED_ROWS // len(spec.features), LEAST_ROWS), MOST_ROWS)
    share = number / max(len(rows), 1)
    judged = rows if share >= 1 else rows[hashed(rows["user_id"], seed, "importance") < share]
    return permutation_importance(lambda part: score(program, *inputs.encode(part)), spec, judged, seed)


def permutation_importance(
    scored: Scorer, spec: FeaturesConfig, rows: pd.DataFrame, seed: int, repeats: int = 1
) -> list[Importance]:
    """Losses are averaged over `repeats` permutations; one is enough where the rows are many, and its chance
    is part of the interval."""
    churned = rows["churned"].to_numpy()
    customer = pd.factorize(rows["user_id"])[0].astype(np.int64)
    before = log_losses(churned, scored(rows))
    gained = np.zeros((len(rows), len(spec.features)))
    for place, feature in enumerate(spec.features):
        draw = np.random.default_rng((seed, place))
        for _ in range(repeats):
            exchanged = with_values(rows, spec, feature.name, draw.permutation(len(rows)))
            gained[:, place] += (log_losses(churned, scored(exchanged)) - before) / repeats
    # one draw of customers serves all features
    sums = cluster_sums(customer, np.column_stack([gained, np.ones(len(rows))]))
    drawn = resampled(sums, Resampling(RESAMPLES, 0.95, seed))
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0)
    found = [
        Importance(feature.name, float(gained[:, place].mean()), float(low[place]), float(high[place]))
        for place, feature in enumerate(spec.features)
    ]
    return sorted(found, key=lambda one: -one.increase)


def with_values(
    rows: pd.DataFrame, spec: FeaturesConfig, feature: str, order: NDArray[np.int64]
) -> pd.DataFrame:
    """`rows` with the feature's values in another order, and the features that are derived from it."""
    changed = {feature: rows[feature].to_numpy()[order]}
    for ratio in spec.derived:
        if feature in (ratio.numerator, ratio.denominator):
            top, bottom = (
                np.asarray(changed.get(part, rows[part]), dtype=np.float64)
                for part in (ratio.numerator, ratio.denominator)
            )
            changed[ratio.name] = top / np.maximum(bottom, ratio.floor)
    return rows.assign(**changed)
