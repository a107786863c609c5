"""How often a model is worth training, from what ageing has cost so far and what a training costs.

Models age: one that was trained k steps ago loses D(k) nats more a customer than a fresh one. If a model is
trained every P steps, a step costs (c + S(P)) / P on average, where c is the price of a training and its
rollout and S(P) = v n (D(0) + ... + D(P - 1)) what ageing costs in between. The best P is that of block
replacement (Barlow and Proschan, 1965, Mathematical Theory of Reliability, chapter 4).
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from retraining.config import Ageing
from retraining.decision import Aged

Floats = NDArray[np.float64]


def period_days(config: Ageing, measured: Sequence[Aged], customers: int) -> float | None:
    """Days after which a training is due: half a step early, to a tenth of a day.

    None: it never pays, or there are no customers. New measurements count more than old ones.
    """
    if not customers:
        return None
    step = timedelta(days=config.step_days)
    newest = max((one.at for one in measured), default=None)
    ages = np.array([round(timedelta(days=one.days) / step) for one in measured], np.int64)
    steps_ago = np.array([(newest - one.at) / step for one in measured if newest is not None])
    curve = ageing(
        ages,
        np.array([one.nats for one in measured], np.float64),
        0.5 ** (steps_ago / config.half_life_steps),
        config.expected_nats,
        config.expected_weight,
    )
    period = best_period(curve, config.cost / (config.value * customers), config.longest_steps)
    return None if period is None else round((period - 0.5) * config.step_days, 1)


def ageing(
    ages: NDArray[np.int64], differences: Floats, weights: Floats, expected: float, expected_weight: float
) -> Floats:
    """D(0), D(1), ... in nats a customer, [largest age + 1], rising.

    From measured differences [P] at ages [P] in steps, with weights [P]. Isotonic regression of their means
    by age, with the expectation that a step of age costs `expected` nats, which has the weight
    `expected_weight` at each age.
    """
    from sklearn.isotonic import IsotonicRegression

    oldest = int(ages.max(initial=0))
    steps = np.arange(oldest + 1, dtype=np.float64)
    sums = expected_weight * expected * steps + np.bincount(ages, weights * differences, oldest + 1)
    counts = expected_weight + np.bincount(ages, weights, oldest + 1)
    curve = IsotonicRegression(y_min=0.0).fit_transform(steps, sums / counts, sample_weight=counts)
    return np.asarray(curve, dtype=np.float64)


def best_period(curve: Floats, price: float, longest: int) -> int | None:
    """The number of steps between trainings with the smallest costs a step; None: never within `longest`.

    `price`: a training with its rollout, in nats a customer of one step. Beyond its last age the curve goes
    on with its mean slope.
    """
    if not np.isfinite(price):
        return None
    slope = curve[-1] / max(len(curve) - 1, 1)
    beyond = curve[-1] + slope * np.arange(1, max(longest - len(curve), 0) + 1)
    lost = np.cumsum(np.concatenate([curve, beyond]))[:longest]
    costs = (price + lost) / np.arange(1, len(lost) + 1)
    best = int(np.argmin(costs)) + 1
    return None if best == longest else best
