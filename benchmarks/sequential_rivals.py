"""Sequential tests of an error rate beside ours: Wald's, and the mSPRT that experimentation platforms use.

mSPRT: the likelihood ratio of "the rates differ by d" to "they are equal", averaged over a normal prior of d
with the standard deviation tau. By the normal approximation with estimated variances (Johari, Koomen, Pekelis
& Walsh 2017, Peeking at A/B tests, KDD, and 2022, Always valid inference, Operations Research 70), with v the
variance of the observed difference:

    ratio = sqrt(v / (v + tau^2)) exp(d^2 tau^2 / (2 v (v + tau^2))),  v = p(1-p)/n + q(1-q)/m

which for n = m is the formula of R's mixtureSPRT. It stops where the ratio reaches 1/alpha. To its favour it
rolls back only where the canary is the worse one, pools all stages (rates never change here), and compares a
canary at weight 100 with all that stable did before. As published: bound 1/alpha, tau is the difference that
there will be. Tuned, as the threshold rules are: a prior on d > 0 alone (no evidence is spent on a better
canary), tau with the soonest rollbacks, and the lowest bound that holds the false alarms at alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from benchmarks.rollouts import error_looks
from rollout.config import Stage

Array = NDArray[np.float64]

TAUS = (0.001, 0.002, 0.004, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)


@dataclass(frozen=True)
class Path:
    """What is known at each look of many rollouts. [looks], and [looks, rollouts]"""

    done: Array
    """Canary requests until then."""
    difference: Array
    """Of the error rates so far: above zero where the canary's is higher."""
    variance: Array
    """Of that difference, estimated."""


@dataclass(frozen=True)
class Mixture:
    tau: float
    one_sided: bool
    bound: float
    """Of the log of the ratio."""


def observed(
    stages: Sequence[Stage], rates: tuple[float, float], step: int, rollouts: int, seed: int
) -> Path:
    """`rates`: of errors, on the canary and on stable. A look every `step` canary requests."""
    before, totals = np.zeros((2, 4, rollouts))
    done, differences, variances = [], [], []
    for look in error_looks(stages, rates, step, rollouts, seed):
        here = [np.full(rollouts, float(look.canary)), look.canary_errors, look.stable, look.stable_errors]
        totals = before + np.stack(here)
        difference, variance = _compared(totals)
        done.append(float(look.done))
        differences.append(difference)
        variances.append(variance)
        if look.last:
            before = totals
    return Path(np.array(done), np.stack(differences), np.stack(variances))


def _compared(totals: Array) -> tuple[Array, Array]:
    canary, canary_errors, stable, stable_errors = totals
    one, other = canary_errors / canary, stable_errors / np.maximum(stable, 1)
    variance = one * (1 - one) / canary + other * (1 - other) / np.maximum(stable, 1)
    return np.where(stable > 0, one - other, 0.0), variance


def log_ratio(path: Path, tau: float, one_sided: bool) -> Array:
    """[looks, rollouts]: minus infinity where the canary is not worse; 0 before the first failure."""
    v = np.where(path.variance > 0, path.variance, 1.0)
    d = np.maximum(path.difference, 0.0)
    both = 0.5 * np.log(v / (v + tau**2)) + d**2 * tau**2 / (2 * v * (v + tau**2))
    if one_sided:  # a normal prior cut at zero: twice the ratio, times the posterior probability of d > 0
        both = both + np.log(2) + log_ndtr(path.difference * tau / np.sqrt(v * (v + tau**2)))
    return np.where(path.variance > 0, np.where(path.difference > 0, both, -np.inf), 0.0)


def stopped(path: Path, rule: Mixture) -> Array:
    """[rollouts]: canary requests until the rollback; inf: none."""
    over = log_ratio(path, rule.tau, rule.one_sided) >= rule.bound
    return np.where(over.any(axis=0), path.done[over.argmax(axis=0)], np.inf)


def published(difference: float, alpha: float) -> Mixture:
    return Mixture(difference, False, float(-np.log(alpha)))


def tuned(null: Sequence[Path], harmful: Path, alpha: float) -> Mixture:
    """The quickest that keeps `alpha` on each of `null`; of equals the one that catches more."""
    found = []
    for tau in TAUS:
        bound = max(_bound(log_ratio(path, tau, True).max(axis=0), alpha) for path in null)
        rule = Mixture(tau, True, bound)
        took = stopped(harmful, rule)
        found.append((float(np.median(took)), -float(np.isfinite(took).mean()), tau, rule))
    return min(found, key=lambda one: one[:3])[-1]


def _bound(highest: Array, alpha: float) -> float:
    """Just above what all but `alpha` of these rollouts ever reach."""
    at = float(np.sort(highest)[::-1][int(alpha * len(highest))])
    return float(np.nextafter(at, np.inf))


def wald(
    rates: tuple[float, float], known: tuple[float, float], alpha: float, requests: int, rollouts: int,
    seed: int,
) -> Array:  # fmt: skip
    """[rollouts]: canary requests until the likelihood ratio of the `known` rates (harm, no harm) on the
    canary alone reaches 1/alpha (Wald 1945); inf: not within `requests`. The limit of any rule."""
    random = np.random.default_rng(seed)
    evidence, took = np.zeros(rollouts), np.full(rollouts, np.inf)
    harm, normal = known
    step = 5
    for done in range(step, requests + 1, step):
        errors = random.binomial(step, rates[0], rollouts)
        evidence += errors * np.log(harm / normal) + (step - errors) * np.log((1 - harm) / (1 - normal))
        took = np.where(np.isinf(took) & (evidence >= -np.log(alpha)), done, took)
    return took
