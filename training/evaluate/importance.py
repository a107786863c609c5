"""Permutation importance of each feature on the test rows.

A feature's values are exchanged between customers. Its distribution stays the same, but its relation to the
label is lost, so the log-loss rises by the contribution of the feature (Breiman 2001, Machine Learning 45;
Fisher, Rudin, Dominici 2019, JMLR 20). The unit is the stored feature: features derived from it, in the spec
or in the program, are computed from the exchanged values. Of two strongly correlated features, each may have
a low importance.
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
"""Rows scored for all features together: about ten seconds with boosted trees in the program, one or two
without. It limits the test rows for each feature, of customers drawn by a hash, to between LEAST_ROWS and
MOST_ROWS."""
LEAST_ROWS = 1_000
MOST_ROWS = 10_000
RESAMPLES = 500

Scorer = Callable[[pd.DataFrame], NDArray[np.float64]]


@dataclass(frozen=True)
class Importance:
    """The importance of one feature, with a confidence interval."""

    feature: str
    increase: float
    """Increase of the mean log-loss, in nats, when the feature's values are exchanged."""
    low: float
    high: float
    """`low` and `high`: 95 % interval by a bootstrap of customers."""

    def content(self) -> dict[str, Any]:
        """The content of the JSON file."""
        return asdict(self)


def importances(
    program: Any, inputs: Inputs, spec: FeaturesConfig, rows: pd.DataFrame, seed: int
) -> list[Importance]:
    """The importance of every stored feature of `spec`, largest first. `program` is the exported program."""
    number = min(max(SCORED_ROWS // len(spec.features), LEAST_ROWS), MOST_ROWS)
    share = number / max(len(rows), 1)
    judged = rows if share >= 1 else rows[hashed(rows["user_id"], seed, "importance") < share]
    return permutation_importance(lambda part: score(program, *inputs.encode(part)), spec, judged, seed)


def permutation_importance(
    scored: Scorer, spec: FeaturesConfig, rows: pd.DataFrame, seed: int, repeats: int = 1
) -> list[Importance]:
    """The importance of every stored feature, largest first. Losses are averaged over `repeats` permutations;
    one is enough for many rows, and its variance is part of the interval."""
    churned = rows["churned"].to_numpy()
    customer = pd.factorize(rows["user_id"])[0].astype(np.int64)
    before = log_losses(churned, scored(rows))
    gained = np.zeros((len(rows), len(spec.features)))
    for place, feature in enumerate(spec.features):
        draw = np.random.default_rng((seed, place))
        for _ in range(repeats):
            exchanged = with_values(rows, spec, feature.name, draw.permutation(len(rows)))
            gained[:, place] += (log_losses(churned, scored(exchanged)) - before) / repeats
    # all features use the same draws of customers
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
    """`rows` with the feature's values in `order`, and the features derived from it computed again."""
    changed = {feature: rows[feature].to_numpy()[order]}
    for ratio in spec.derived:
        if feature in (ratio.numerator, ratio.denominator):
            top, bottom = (
                np.asarray(changed.get(part, rows[part]), dtype=np.float64)
                for part in (ratio.numerator, ratio.denominator)
            )
            changed[ratio.name] = top / np.maximum(bottom, ratio.floor)
    return rows.assign(**changed)
