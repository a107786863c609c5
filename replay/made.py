"""Made histories: real inputs of customers, outcomes of a known model whose coefficients change when planted.

Each month, customers are drawn from real rows; whether they churn is drawn from a logistic model that was
fitted to real outcomes. A planted shift adds a vector to its coefficients, from that month on. So it is known
when training helps, and a stable history has no reason to train at all.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from replay.losses import LossMatrix, stacked

Floats = NDArray[np.float64]
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
RIDGE = 1.0


@dataclass(frozen=True)
class Pool:
    """Real rows: standardised inputs with a constant first, [N, F], and fitted coefficients [F]."""

    inputs: Floats
    coefficients: Floats

    @classmethod
    def of(cls, inputs: Floats, churned: Floats) -> "Pool":
        """From inputs [N, F] without gaps and outcomes [N]."""
        spread = inputs.std(axis=0)
        used = spread > 1e-9
        scaled = (inputs[:, used] - inputs[:, used].mean(axis=0)) / spread[used]
        rows = np.column_stack([np.ones(len(scaled)), np.clip(scaled, -4, 4)])
        return cls(rows, fit_logistic(rows, churned))


@dataclass(frozen=True)
class Plan:
    """What is planted."""

    months: int = 60
    customers: int = 800
    """Scored each month."""
    shifts: int = 4
    """Months at which the coefficients change; drawn, none in the first or last four."""
    size: float = 0.6
    """Root mean square of a shift's effect on the log-odds."""
    label_lag: int = 3
    window: int = 12
    """A model is trained on so many newest months with known outcomes."""


def made_history(pool: Pool, plan: Plan, seed: int) -> tuple[LossMatrix, tuple[int, ...]]:
    """The loss matrix of a made history, and the months of its shifts. Equal seeds give equal histories.

    `plan.window` months before the first moment have known outcomes, so the first model is as good as later
    ones.
    """
    draws = np.random.default_rng(seed)
    warm = plan.window + plan.label_lag
    months = plan.months
    shifts = tuple(sorted(int(m) for m in draws.choice(np.arange(4, months - 4), plan.shifts, replace=False)))
    base = draws.choice(len(pool.inputs), 4 * plan.customers, replace=False)
    truth, drawn = pool.coefficients, []
    for month in range(-warm, months):
        if month in shifts:
            truth = truth + _direction(pool, draws) * plan.size
        who = draws.choice(len(base), plan.customers, replace=False)
        rows = pool.inputs[base[who]]
        drawn.append((who, rows, (draws.random(len(rows)) < _sigmoid(rows @ truth)).astype(np.float64)))
    losses = []
    for s in range(months):
        known = drawn[s : s + plan.window]  # the newest ends a label lag before s
        model = fit_logistic(np.concatenate([r for _, r, _ in known]), np.concatenate([y for *_, y in known]))
        losses.append([_scattered(drawn[warm + t], model, len(base)) for t in range(s, months)])
    moments = tuple(FIRST + timedelta(days=30 * month) for month in range(months))
    drift = np.where(np.tri(months, dtype=bool).T, 0.0, np.nan)
    return LossMatrix(moments, stacked(losses), drift, plan.label_lag), shifts


def fit_logistic(rows: Floats, churned: Floats, steps: int = 12) -> Floats:
    """Coefficients [F] of a ridge logistic regression by Newton's method."""
    beta = np.zeros(rows.shape[1])
    for _ in range(steps):
        p = _sigmoid(rows @ beta)
        gradient = rows.T @ (p - churned) + RIDGE * beta
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + RIDGE * np.eye(len(beta))
        change = np.linalg.solve(curvature, gradient)
        beta = beta - change
        if np.abs(change).max() < 1e-6:
            break
    return beta


def _direction(pool: Pool, draws: np.random.Generator) -> Floats:
    """A random change of coefficients whose effect on the log-odds has a root mean square of 1."""
    vector = draws.normal(size=len(pool.coefficients))
    effect = pool.inputs @ vector
    return np.asarray(vector / np.sqrt(np.mean(effect**2)))


def _scattered(
    month: tuple[NDArray[np.int64], Floats, Floats], model: Floats, customers: int
) -> NDArray[np.float32]:
    """[customers]: the losses of those who were scored, NaN for the others."""
    who, rows, churned = month
    logits = rows @ model
    losses = np.full(customers, np.nan, np.float32)
    losses[who] = np.logaddexp(0, logits) - churned * logits
    return losses


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -30, 30))))
