"""The purchase model BG/NBD of Fader, Hardie and Lee (2005), which is fitted without labels.

An active customer buys at a constant rate, distributed gamma(r, alpha) across customers. After each purchase
the customer leaves for good with a probability that is distributed beta(a, b).
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow.dataset import dataset, field
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln

from core.errors import TrainingError
from data.records.folder import parts_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BgNbd:
    """The four parameters. Times are in the unit of the data they were fitted on (here days)."""

    r: float
    alpha: float
    a: float
    b: float

    @classmethod
    def fit(cls, frequency: Floats, recency: Floats, age: Floats) -> Self:
        """Maximum likelihood from repeat purchases, time of the last, time observed, each [customers].

        Raises TrainingError if the search does not converge.
        """
        summary, counts = np.unique(np.stack([frequency, recency, age]), axis=1, return_counts=True)
        # the search uses logarithms and units in which the mean age is 1, so that it is well scaled
        unit = float(age.mean())
        x, last, observed = summary[0], summary[1] / unit, summary[2] / unit

        def loss(logarithms: Floats) -> float:
            likelihood = _log_likelihood(x, last, observed, *np.exp(logarithms))
            return -float(counts @ likelihood) / float(counts.sum())

        found = minimize(loss, np.zeros(4), method="L-BFGS-B", bounds=[(-12, 12)] * 4)
        if not found.success:
            raise TrainingError(
                f"BG/NBD found no parameters ({found.message}); remove bg_nbd from training.baselines"
            )
        r, alpha, a, b = np.exp(found.x)
        return cls(float(r), float(alpha) * unit, float(a), float(b))

    def log_likelihood(self, frequency: Floats, recency: Floats, age: Floats) -> float:
        """Sum over the customers, whose data are [customers] as in `fit`."""
        return float(_log_likelihood(frequency, recency, age, self.r, self.alpha, self.a, self.b).sum())

    def alive(self, frequency: Floats, recency: Floats, age: Floats) -> Floats:
        """P(has not left | history), [customers]; 1 without a repeat purchase, as no one leaves before it."""
        odds = (
            np.log(self.a)
            - np.log(self.b + np.maximum(frequency, 1) - 1)
            + (self.r + frequency) * (np.log(self.alpha + age) - np.log(self.alpha + recency))
        )
        return np.where(frequency > 0, expit(-odds), 1.0)

    def churn(self, frequency: Floats, recency: Floats, age: Floats, horizon: float) -> Floats:
        """P(no purchase in the next `horizon`), [customers]: has left, or is active and does not buy."""
        pause = ((self.alpha + age) / (self.alpha + age + horizon)) ** (self.r + frequency)
        return 1 - self.alive(frequency, recency, age) * (1 - pause)


def purchase_summary(records: Path, as_of: datetime) -> pd.DataFrame:
    """user_id -> frequency (days with a repeat purchase), recency and age in days, before `as_of`.

    `records` is a folder of parts (data/records/folder.py). Returns do not count as purchases.
    """
    import duckdb

    log = dataset(parts_of(records), format="parquet")
    bought = ~field("is_return") if "is_return" in log.schema.names else None
    purchases = log.scanner(columns=["user_id", "timestamp"], filter=bought).to_reader()
    query = """
        with past as (
            select user_id, epoch(date_trunc('day', timestamp)) / 86400 as day
            from purchases where timestamp < $as_of
        )
        select user_id, count(distinct day) - 1.0 as frequency, max(day) - min(day) as recency,
               epoch($as_of::timestamptz) / 86400 - min(day) as age
        from past group by user_id order by user_id
    """
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("purchases", purchases)
        return connection.execute(query, {"as_of": as_of}).df().set_index("user_id")


def _log_likelihood(
    x: Floats, last: Floats, observed: Floats, r: float, alpha: float, a: float, b: float
) -> Floats:
    """Log-likelihood of each customer: the logarithm of equation 6 of the paper."""
    common = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b)
    alive = -(r + x) * np.log(alpha + observed)
    left = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + last)
    result: Floats = common + np.where(x > 0, np.logaddexp(alive, left), alive)
    return result
