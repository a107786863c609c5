"""Whom an offer pays for: from a churn probability to money.

The model of Verbeke, Dejaeger, Martens, Hur & Baesens (2012), Eur. J. Oper. Res. 218, after Neslin et al.
(2006): contacting costs `contact_cost`. A customer who would leave takes the offer with probability
`acceptance_rate`, stays, and is worth `customer_value` less the offer. A customer who would have stayed takes
the offer as a present, which costs `offer_cost`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from data.errors import ConfigError
from training.config import TYPICAL_VALUE, DecisionConfig, ValueColumn

Numbers = NDArray[np.float64]


def expected_profit(
    probability: ArrayLike, decision: DecisionConfig, customer_value: ArrayLike | None = None
) -> Numbers:
    """Of an offer to each customer. `customer_value` per customer where it is known, else the config's."""
    p = np.asarray(probability, dtype=np.float64)
    value = np.asarray(
        typical_value(decision) if customer_value is None else customer_value, dtype=np.float64
    )
    return p * _kept(value, decision) - (1 - p) * decision.offer_cost - decision.contact_cost


def break_even(decision: DecisionConfig, customer_value: float | None = None) -> float:
    """The probability of churn at which an offer costs what it brings; 1 or more where it never pays."""
    kept = _kept(typical_value(decision) if customer_value is None else customer_value, decision)
    gain = kept + decision.offer_cost
    return float((decision.offer_cost + decision.contact_cost) / gain) if gain > 0 else np.inf


def typical_value(decision: DecisionConfig) -> float:
    """The one number: everybody's worth, or the default of those whose own is not known."""
    value = decision.customer_value
    if value is None:
        return TYPICAL_VALUE
    return value.default if isinstance(value, ValueColumn) else value


def customer_values(rows: pd.DataFrame, decision: DecisionConfig) -> Numbers | None:
    """Each row's own worth, the default where it is missing; None where the config has one number for all.

    Raises ConfigError where `rows` lack the column.
    """
    value = decision.customer_value
    if not isinstance(value, ValueColumn):
        return None
    decision.refuse_unknown_column(rows.select_dtypes("number").columns.tolist())
    own = rows[value.column].to_numpy(dtype=np.float64)
    return np.where(np.isfinite(own), own, value.default)


def values_of_scores(scores: pd.DataFrame, training_set: Path, decision: DecisionConfig) -> Numbers | None:
    """`customer_values` of rows that have kept their keys only (test_scores.parquet): user_id and
    event_timestamp lead to the features in `training_set`."""
    value = decision.customer_value
    if not isinstance(value, ValueColumn):
        return None
    keys = ["user_id", "event_timestamp"]
    known = pd.read_parquet(training_set, columns=[*keys, value.column])
    return customer_values(scores[keys].merge(known, on=keys, how="left", validate="many_to_one"), decision)


def acting_threshold(decision: DecisionConfig, fixed: float) -> float:
    """The threshold that ships in the bundle: one number, that of the default where worth differs from
    customer to customer (`ranking` knows each one's own).

    Raises ConfigError where no offer pays, or every one does.
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
    """Positions of the customers, the most profitable offer first; ties in the order given."""
    return np.argsort(-expected_profit(probability, decision, customer_value), kind="stable")


@dataclass(frozen=True)
class ProfitCurve:
    """What the offers to the customers ranked first would have brought, by how many are contacted."""

    share: Numbers
    """Of the customers contacted, ascending, from 0."""
    profit: Numbers
    """For each customer there is (not each contacted), the acceptance taken at its expectation."""
    chosen: int
    """Where the threshold stops: the position in both."""

    @property
    def best(self) -> int:
        """Where these labels would have had it stop."""
        return int(np.argmax(self.profit))

    @property
    def reached(self) -> float:
        """Share of the best profit that the threshold reaches; 1 where nothing can be gained either way."""
        best = float(self.profit[self.best])
        return float(self.profit[self.chosen]) / best if best > 0 else float(self.profit[self.chosen] >= 0)


def profit_curve(
    churned: ArrayLike,
    probability: ArrayLike,
    decision: DecisionConfig,
    customer_value: ArrayLike | None = None,
) -> ProfitCurve:
    """On customers whose outcome is known. They are ranked and chosen without it."""
    expected = expected_profit(probability, decision, customer_value)
    realised = expected_profit(churned, decision, customer_value)
    order = ranking(probability, decision, customer_value)
    gained = np.concatenate([[0.0], np.cumsum(realised[order])]) / max(len(expected), 1)
    share = np.arange(len(gained)) / max(len(expected), 1)
    return ProfitCurve(share, gained, int((expected > 0).sum()))


def _kept(value: ArrayLike, decision: DecisionConfig) -> Numbers:
    """What contacting one who would leave brings, before the cost of contacting."""
    worth = np.asarray(value, dtype=np.float64) - decision.offer_cost
    return np.asarray(decision.acceptance_rate * worth)
