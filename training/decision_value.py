"""The expected profit of a retention offer, from the churn probability of a customer.

The model of Verbeke, Dejaeger, Martens, Hur & Baesens (2012), Eur. J. Oper. Res. 218, after Neslin et al.
(2006): contacting costs `contact_cost`. A customer who would leave takes the offer with probability
`acceptance_rate`, stays, and brings `customer_value` less `offer_cost`. A customer who would have stayed
takes the offer too, which costs `offer_cost`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.errors import ConfigError
from training.config import TYPICAL_VALUE, DecisionConfig, ValueColumn

Numbers = NDArray[np.float64]


def expected_profit(
    probability: ArrayLike, decision: DecisionConfig, customer_value: ArrayLike | None = None
) -> Numbers:
    """Expected profit of an offer to each customer, [B] from `probability` [B].

    `customer_value` is [B]; None takes the one value of the config for all.
    """
    p = np.asarray(probability, dtype=np.float64)
    value = np.asarray(
        typical_value(decision) if customer_value is None else customer_value, dtype=np.float64
    )
    return p * _retained_value(value, decision) - (1 - p) * decision.offer_cost - decision.contact_cost


def break_even(decision: DecisionConfig, customer_value: float | None = None) -> float:
    """The churn probability at which an offer costs as much as it brings; 1 or more if it never pays."""
    retained = _retained_value(
        typical_value(decision) if customer_value is None else customer_value, decision
    )
    gain = retained + decision.offer_cost
    return float((decision.offer_cost + decision.contact_cost) / gain) if gain > 0 else np.inf


def typical_value(decision: DecisionConfig) -> float:
    """The value of all customers, or the default for customers without a value of their own."""
    value = decision.customer_value
    if value is None:
        return TYPICAL_VALUE
    return value.default if isinstance(value, ValueColumn) else value


def customer_values(rows: pd.DataFrame, decision: DecisionConfig) -> Numbers | None:
    """The value of each row [B], the default where it is missing; None if the config has one for all.

    Raises ConfigError if `rows` lack the column.
    """
    value = decision.customer_value
    if not isinstance(value, ValueColumn):
        return None
    decision.refuse_unknown_column(rows.select_dtypes("number").columns.tolist())
    values = rows[value.column].to_numpy(dtype=np.float64)
    return np.where(np.isfinite(values), values, value.default)


def values_of_scores(scores: pd.DataFrame, training_set: Path, decision: DecisionConfig) -> Numbers | None:
    """`customer_values` of rows that have keys but no features (test_scores.parquet): the features are joined
    from `training_set` by user_id and event_timestamp."""
    value = decision.customer_value
    if not isinstance(value, ValueColumn):
        return None
    keys = ["user_id", "event_timestamp"]
    known = pd.read_parquet(training_set, columns=[*keys, value.column])
    return customer_values(scores[keys].merge(known, on=keys, how="left", validate="many_to_one"), decision)


def acting_threshold(decision: DecisionConfig, fixed: float) -> float:
    """The threshold that is packaged in the bundle: one number, for the default value where values differ
    between customers (`ranking` uses the value of each).

    Raises ConfigError if no offer pays, or every offer does.
    """
    if decision.threshold == "training":
        return fixed
    threshold = break_even(decision)
    if not 0 < threshold < 1:
        raise ConfigError(
            f"decision: offers break even at a churn probability of {threshold:.3g}, which is no threshold; "
            "correct decision.customer_value, offer_cost, contact_cost or acceptance_rate, "
            "or set decision.threshold to training"
        )
    return threshold


def ranking(
    probability: ArrayLike, decision: DecisionConfig, customer_value: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Positions of the customers [B], the most profitable offer first; ties keep the given order."""
    return np.argsort(-expected_profit(probability, decision, customer_value), kind="stable")


@dataclass(frozen=True)
class ProfitCurve:
    """The profit of offers to the first customers of the ranking, by the share of customers contacted."""

    share: Numbers
    """Share of the customers contacted, ascending from 0."""
    profit: Numbers
    """Profit divided by the number of all customers (not of those contacted), at the expected acceptance."""
    chosen: int
    """The position of the threshold in both arrays."""

    @property
    def best(self) -> int:
        """The position of the largest profit for these labels."""
        return int(np.argmax(self.profit))

    @property
    def reached(self) -> float:
        """Profit at the threshold as a share of the best; without possible profit 1 for no loss, else 0."""
        best = float(self.profit[self.best])
        return float(self.profit[self.chosen]) / best if best > 0 else float(self.profit[self.chosen] >= 0)


def profit_curve(
    churned: ArrayLike,
    probability: ArrayLike,
    decision: DecisionConfig,
    customer_value: ArrayLike | None = None,
) -> ProfitCurve:
    """The curve of customers with known labels `churned` [B]; ranking and choice do not use the labels."""
    expected = expected_profit(probability, decision, customer_value)
    realised = expected_profit(churned, decision, customer_value)
    order = ranking(probability, decision, customer_value)
    gained = np.concatenate([[0.0], np.cumsum(realised[order])]) / max(len(expected), 1)
    share = np.arange(len(gained)) / max(len(expected), 1)
    return ProfitCurve(share, gained, int((expected > 0).sum()))


def _retained_value(value: ArrayLike, decision: DecisionConfig) -> Numbers:
    """Expected gain from a customer who would leave, before the cost of contacting."""
    worth = np.asarray(value, dtype=np.float64) - decision.offer_cost
    return np.asarray(decision.acceptance_rate * worth)
