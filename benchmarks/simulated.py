"""Simulated purchase logs of shops that are unlike the real data sets.

Customers arrive over the whole log, buy while they are active, and leave without notice. The logs differ in
the variation between customers, in seasonality, in the share of customers who leave, and in their length.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

START = pd.Timestamp("2020-01-01", tz="UTC")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shop:
    """A shop: its customers, the days of its log, and the settings of the features."""

    customers: int
    days: int
    buy: Callable[[np.random.Generator, int], "Lifetimes"]
    growth: float = 1.0
    """Arrivals on the last day as a multiple of those on the first."""
    season: Callable[[float], float] | None = None
    """Share of the purchases that take place on a day of the log."""
    features: dict[str, Any] = field(default_factory=dict)
    """Settings of configs/features.yaml."""


@dataclass(frozen=True)
class Lifetimes:
    """The days that each customer stays, and the function of the pause before the next purchase."""

    stay: Floats
    pause: Callable[[np.random.Generator, int], float]


def simulate(shop: Shop, seed: int = 1) -> pd.DataFrame:
    """user_id, timestamp, amount, quantity: a row a purchase, days without hours."""
    draw = np.random.default_rng(seed)
    share = draw.random(shop.customers)
    if shop.growth != 1:
        share = np.log1p(share * (shop.growth - 1)) / np.log(shop.growth)
    arrival = share * shop.days
    lifetimes = shop.buy(draw, shop.customers)
    typical = draw.normal(3.3, 0.6, shop.customers)
    customers, days, amounts = [], [], []
    for customer, first in enumerate(arrival):
        until, moments = min(shop.days, first + lifetimes.stay[customer]), [first]
        day = first + lifetimes.pause(draw, customer)
        while day < until:
            if shop.season is None or draw.random() < shop.season(day):
                moments.append(day)
            day += lifetimes.pause(draw, customer)
        customers += [customer] * len(moments)
        days += moments
        amounts.append(np.exp(draw.normal(typical[customer], 0.5, len(moments))))
    return pd.DataFrame(
        {
            "user_id": [f"u{customer:06}" for customer in customers],
            "timestamp": START + pd.to_timedelta(np.floor(days), unit="D"),
            "amount": np.round(np.concatenate(amounts), 2),
            "quantity": 1.0 + draw.poisson(1.0, len(days)),
        }
    )


def pareto_nbd(r: float, alpha: float, s: float, beta: float, regularity: float = 1.0) -> Any:
    """Rates gamma(r, alpha) and death rates gamma(s, beta) a day (Schmittlein and others, 1987).

    Pauses are gamma of shape `regularity`: 1 has no memory, 3 is regular (Platzer and Reutterer, 2016).
    """

    def buy(draw: np.random.Generator, customers: int) -> Lifetimes:
        rate = np.maximum(draw.gamma(r, 1 / alpha, customers), 1e-5)
        leave = np.maximum(draw.gamma(s, 1 / beta, customers), 1e-7)
        return Lifetimes(
            draw.exponential(1 / leave),
            lambda draw, customer: draw.gamma(regularity, 1 / (rate[customer] * regularity)),
        )

    return buy


def subscription(draw: np.random.Generator, customers: int) -> Lifetimes:
    """Every 7 to 90 days, give or take an eighth, at times skipping one; a quarter never comes back."""
    period = draw.choice([7.0, 14.0, 30.0, 60.0, 90.0], customers, p=[0.1, 0.2, 0.4, 0.2, 0.1])
    once = draw.random(customers) < 0.25
    stay = np.where(once, 0.5, draw.exponential(draw.gamma(2, 200, customers)))

    def pause(draw: np.random.Generator, customer: int) -> float:
        skipped = 2 if draw.random() < 0.08 else 1
        return max(1.0, period[customer] * (1 + 0.12 * draw.normal())) * skipped

    return Lifetimes(stay, pause)


def bursty(draw: np.random.Generator, customers: int) -> Lifetimes:
    """Phases of buying, and pauses of months between them that are not the end."""
    rate = draw.gamma(0.8, 1 / 15.0, customers) + 1e-4
    stay = draw.exponential(1 / (draw.gamma(1, 1 / 300, customers) + 1e-7))
    return Lifetimes(
        stay,
        lambda draw, customer: (
            draw.exponential(1 / rate[customer]) if draw.random() < 0.8 else draw.gamma(2, 60)
        ),
    )


def christmas(day: float) -> float:
    """Every wish is bought from mid-November to Christmas, under half of them before, a third in July."""
    of_year = day % 365.25
    if 315 < of_year < 358:
        return 1.0
    return 0.3 if 195 < of_year < 230 else 0.45


SHOPS = {
    "heterogeneous": Shop(10_000, 700, pareto_nbd(0.4, 15, 0.5, 60)),
    "christmas": Shop(12_000, 1000, pareto_nbd(0.7, 20, 0.6, 150), season=christmas),
    "subscription": Shop(6_000, 800, subscription),
    "growing": Shop(15_000, 600, pareto_nbd(0.8, 30, 0.7, 120), growth=8.0),
    "short": Shop(5_000, 490, pareto_nbd(0.6, 20, 0.6, 80)),
    "short, 2,000 customers": Shop(2_000, 490, pareto_nbd(0.6, 20, 0.6, 80)),
    "loyal": Shop(5_000, 700, pareto_nbd(2.0, 20, 0.3, 900)),
    "loyal, 30 days": Shop(3_000, 500, pareto_nbd(4.0, 18, 0.25, 900), features={"horizon_days": 30}),
    "30 days": Shop(20_000, 500, pareto_nbd(0.8, 25, 0.6, 120), features={"horizon_days": 30}),
    "180 days": Shop(8_000, 1100, pareto_nbd(0.6, 30, 0.6, 200), features={"horizon_days": 180}),
    "50,000 customers": Shop(50_000, 560, pareto_nbd(0.5, 20, 0.6, 60)),
    "bursty": Shop(8_000, 800, bursty),
    "regular": Shop(8_000, 800, pareto_nbd(1.2, 30, 0.6, 120, regularity=3.0)),
    "weekly": Shop(
        2_000,
        300,
        pareto_nbd(1.0, 15, 0.6, 60),
        features={"horizon_days": 30, "snapshots": {"every": "week"}},
    ),
}
