"""Grades a decision by what the labels showed afterwards: what another answer would have changed.

Two models score the same customers: the one that would have gone on serving, and the one that a training
would have given. A training was worth it where the lower bound of the interval of its gain is above zero. So
`yes` is right where it was, and `no` and `vetoed` are right where it was not.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retraining.decision import Action
from retraining.ledger import Grade
from training.config import DecisionConfig
from training.decision_value import customer_values, expected_profit
from training.evaluate.bootstrap import Resampling, mean_interval
from training.learn.metrics import log_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """The customers by whom a decision is graded."""

    rows: pd.DataFrame
    """user_id, churned, and the feature of `decision.customer_value` if one is configured; [B]"""
    without: Floats
    """[B]: the probability of churn by the model that serves where nothing is trained."""
    trained: Floats
    """[B]: that by the trained model."""
    trained_is: str
    """What the trained model is, for the reason."""


def grade(
    number: int,
    action: Action,
    compared: Compared,
    decision: DecisionConfig,
    at: datetime,
    resampling: Resampling,
) -> Grade:
    """The grade of decision `number`. `cost_nats` and `cost_money` are what the given answer lost against the
    other one, a label and in all; negative where it gained."""
    churned = compared.rows["churned"].to_numpy(dtype=np.float64)
    customer = pd.factorize(compared.rows["user_id"], sort=True)[0].astype(np.int64)
    gain = log_losses(churned, compared.without) - log_losses(churned, compared.trained)
    found = mean_interval(gain, customer, resampling)
    money = profit(compared.rows, compared.trained, decision) - profit(
        compared.rows, compared.without, decision
    )
    worth_it = bool(found.low > 0)
    sign = -1.0 if action is Action.YES else 1.0
    right = worth_it is (action is Action.YES)
    numbers = {
        "customers": float(len(np.unique(customer))),
        "rows": float(len(gain)),
        "gain_nats": float(found.estimate),
        "gain_nats_low": float(found.low),
        "gain_nats_high": float(found.high),
        "cost_nats": sign * float(found.estimate),
        "cost_nats_total": sign * float(gain.sum()),
        "cost_money_total": sign * money,
    }
    verb = "would have gained" if action is not Action.YES else "gained"
    reason = (
        f"On {len(gain):,} labels that matured since, {compared.trained_is} {verb} {found.estimate:.4f} nats"
        f" a label [{found.low:.4f}, {found.high:.4f}] and {money:,.2f} of profit in all."
    )
    return Grade(number, at, "right" if right else "wrong", reason, numbers)


def profit(rows: pd.DataFrame, probability: Floats, decision: DecisionConfig) -> float:
    """The profit of offers to the customers for whom `probability` promises one, at their true outcomes."""
    values = customer_values(rows, decision)
    offered = expected_profit(probability, decision, values) > 0
    return float(expected_profit(rows["churned"], decision, values)[offered].sum())
