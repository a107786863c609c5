"""Distributions at equal tenure: growth of tenure is no drift, and a change within a tenure is."""

import numpy as np
import pandas as pd
import pytest

from monitoring.checks.distributions import NULL, Sample, check, count
from monitoring.config import MonitoringConfig
from monitoring.findings import Cause, Severity

CONFIG = MonitoringConfig()
ROWS = 4_000


def rows(rng: np.random.Generator, oldest: float, rate: float = 2.0) -> pd.DataFrame:
    """Orders in proportion to tenure, and a plan that does not depend on it."""
    tenure = rng.uniform(0, oldest, ROWS)
    return pd.DataFrame(
        {"tenure": tenure, "orders": rng.poisson(rate * tenure), "plan": rng.choice(["a", "b"], ROWS)}
    )


def sample(frame: pd.DataFrame) -> Sample:
    return Sample.of(frame, ["orders", "plan"], "tenure")


def test_expected_shares_are_the_references_shares_at_the_same_tenure() -> None:
    reference = pd.DataFrame({"tenure": [1.0] * 50 + [9.0] * 50, "plan": ["a"] * 50 + ["a", "b"] * 25})
    window = pd.DataFrame({"tenure": [9.0] * 30 + [1.0] * 10, "plan": ["a"] * 40})
    counts = count(sample(reference), sample(window), "training").set_index("part")
    assert counts.loc["word 1", "expected"] == pytest.approx((30 * 0.5 + 10 * 1.0) / 40)
    assert counts.loc["word 1", "hits"] == 40
    assert counts.loc["word 2", "expected"] == pytest.approx(30 * 0.5 / 40)


def test_an_older_population_is_no_drift_and_more_orders_at_the_same_tenure_are() -> None:
    rng = np.random.default_rng(0)
    reference, older = rows(rng, 10), rows(rng, 10).query("tenure > 5")
    counts = count(sample(reference), sample(older), "training")
    assert not check(counts, CONFIG).findings
    more = count(sample(reference), sample(rows(rng, 10, rate=4.0)), "training")
    (finding,) = check(more, CONFIG).findings
    assert (finding.subject, finding.cause, finding.severity) == ("orders", Cause.DRIFT, Severity.TICKET)


def test_what_the_same_season_had_too_is_for_the_digest() -> None:
    rng = np.random.default_rng(1)
    reference, season, window = rows(rng, 10), rows(rng, 10, 4.0), rows(rng, 10, 4.0)
    counts = pd.concat(
        [
            count(sample(reference), sample(window), "training"),
            count(sample(season), sample(window), "season"),
        ]
    )
    (finding,) = check(counts, CONFIG).findings
    assert finding.severity is Severity.DIGEST


def test_customers_older_than_any_in_the_reference_are_not_compared() -> None:
    rng = np.random.default_rng(2)
    window = rows(rng, 10).assign(tenure=lambda frame: frame["tenure"] + 20)
    checked = check(count(sample(rows(rng, 10)), sample(window), "training"), CONFIG)
    assert not checked.findings
    values = {(one.name, one.subject): one.value for one in checked.measurements}
    assert values["comparable_share_training", "orders"] == 0
    assert np.isnan(values["psi_training", "orders"])


@pytest.mark.parametrize(("share", "cause"), [(0.2, Cause.DRIFT), (0.9, Cause.CORRUPTION)])
def test_missing_values_are_a_test_of_their_own(share: float, cause: Cause) -> None:
    rng = np.random.default_rng(3)
    window = rows(rng, 10)
    window["orders"] = window["orders"].astype(float).mask(rng.random(ROWS) < share)
    counts = count(sample(rows(rng, 10)), sample(window), "training")
    assert NULL in set(counts["part"])
    (finding,) = check(counts, CONFIG).findings
    assert (finding.check, finding.subject, finding.cause) == ("nulls", "orders", cause)


def test_no_tenure_no_rows_and_no_common_column_are_no_errors() -> None:
    rng = np.random.default_rng(4)
    one = Sample.of(rows(rng, 10), ["plan"], None)
    assert not check(count(one, one, "training"), CONFIG).findings
    none = Sample.of(rows(rng, 10).iloc[:0], ["plan"], "tenure")
    for pair in ((one, none), (none, one), (one, Sample.of(rows(rng, 10), ["orders"], None))):
        assert not check(count(*pair, "training"), CONFIG).findings
