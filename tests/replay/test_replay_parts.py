"""The parts of a replay: simulated time, canaries on replayed answers, the ledger, ageing, made histories."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from churn.settings import load_settings
from core.errors import ReplayError
from core.workspace import Workspace
from data.config import DataConfig
from data.prepare.clean import Cleaner
from data.source.sources import as_table
from replay.canary import Answers, Canaries
from replay.clock import SimulatedClock, moments
from replay.costs import Costs
from replay.governed import Governed
from replay.hindsight import best_schedule
from replay.ledger import Ledger
from replay.made import Plan, Pool, made_history
from replay.matrix import Plan as StudyPlan
from replay.matrix import computed, training_rows
from replay.outcomes import Activity, churned
from replay.policies import Cadence, schedule_of
from replay.study import compare, of_policy
from replay.triggers import policy_of
from retraining.tempo import ageing, best_period
from rollout.config import RolloutConfig
from rollout.registry import OthersRegistry
from rollout.state import Change, Rollout
from rollout.store import Store
from rollout.targets.target import Candidate

START = datetime(2021, 1, 1, tzinfo=UTC)


def test_moments_are_months_or_fortnights_and_too_few_are_refused() -> None:
    found = moments(datetime(2021, 11, 1, tzinfo=UTC), datetime(2022, 2, 1, tzinfo=UTC), "month")
    assert [f"{one:%Y-%m}" for one in found] == ["2021-11", "2021-12", "2022-01", "2022-02"]
    assert len(moments(START, START + timedelta(days=29), "fortnight")) == 3
    with pytest.raises(ReplayError, match="less than one month apart"):
        moments(START, START + timedelta(days=20), "month")
    with pytest.raises(ReplayError, match="up to the 28th"):
        moments(START.replace(day=31), START + timedelta(days=90), "month")


def test_simulated_clock_moves_only_when_it_is_moved_and_never_back() -> None:
    clock = SimulatedClock(START)
    clock.sleep(90)
    clock.move_to(START)
    assert clock.now() == START + timedelta(seconds=90)


def test_rows_from_the_replayed_moment_on_are_as_if_they_did_not_exist() -> None:
    config = DataConfig.model_validate(
        {
            "shape": "transactions",
            "expectations": [],
            "source": {
                "kind": "csv",
                "uri": "unused.csv",
                "columns": {"user_id": "who", "timestamp": "at", "amount": "paid"},
                "user_id_type": "string",
            },
        }
    )
    rows = pa.table(
        {
            "who": ["a", "b", "c", "d"],
            "at": ["2021-01-01", "2021-01-02", "2021-01-03", "2021-01-04"],
            "paid": ["1", "x", "nonsense", "4"],
        }
    )
    cleaner = Cleaner(config, as_table(config), until=datetime(2021, 1, 3, tzinfo=UTC))
    cleaned = cleaner.clean(rows)
    assert cleaned.records["user_id"].to_pylist() == ["a"]
    assert cleaned.rejected.places.to_pylist() == [2]  # the unreadable amount of the third row is not counted
    assert cleaner.tally.rows == 2


def test_outcomes_are_those_of_the_label(tmp_path: Path) -> None:
    files = Workspace(tmp_path)
    files.records.mkdir(parents=True)
    day = pd.Timestamp(START)
    rows = pd.DataFrame(
        {
            "user_id": ["a", "b", "b", "c", "d"],
            "timestamp": [day - pd.Timedelta(days=1), day, day + pd.Timedelta(days=40),
                          day + pd.Timedelta(days=28), day + pd.Timedelta(days=3)],
            "is_return": [False, False, False, False, True],
        }
    )  # fmt: skip
    rows.to_parquet(files.records / "part.parquet")
    days = Activity(files, returns_count=False).return_days(("a", "b", "c", "d"), START)
    assert np.array_equal(days, [np.nan, 0, 28, np.nan], equal_nan=True)
    assert churned(days, timedelta(days=28)).tolist() == [1, 0, 1, 1]  # a return on day 28 is too late
    assert Activity(files, returns_count=True).return_days(("d",), START).tolist() == [3]


def rolled_out(tmp_path: Path, stable: np.ndarray, canary: np.ndarray) -> Rollout:
    config: RolloutConfig = load_settings(overrides=[f"workspace={tmp_path}"]).rollout
    rules = config.rules.model_copy(update={"latency": None})
    config = config.model_copy(update={"rules": rules, "tick_s": 20.0, "segments": ()})
    store = Store(f"sqlite:///{tmp_path}/rollout.db")
    clock = SimulatedClock(START)
    one, other = (Candidate(f"{name}.mar", name * 64, name * 12) for name in "ab")
    begun = store.start("churn", Change(other, one, "replay", START, "test"), config, id="first")
    users = tuple(f"customer {number}" for number in range(len(stable)))
    canaries = Canaries(store, config, OthersRegistry("a test"), requests_per_s=50, seed=1)
    return canaries.control(begun, one, Answers(users, stable, canary, 0.5, 0.5), clock)


def test_equal_canary_is_promoted_and_one_with_other_scores_is_taken_back(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).uniform(0.6, 0.95, 3000)
    for folder in ("same", "other"):
        (tmp_path / folder).mkdir()
    same = rolled_out(tmp_path / "same", scores, np.clip(scores + 0.001, 0, 1))
    assert same.phase == "promoted"
    other = rolled_out(tmp_path / "other", scores, scores - 0.3)
    assert other.phase == "rolled_back"
    assert "score_shift" in other.outcome or "decision_rate" in other.outcome


def test_equal_ledgers_have_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ledger = Ledger(tmp_path / name)
        ledger.write(START, "measured", psi=np.float64(1 / 3), loss=float("nan"), counts={"b": 1, "a": 2})
        ledger.close()
    content = (tmp_path / "one").read_text()
    assert content == (tmp_path / "two").read_text()
    assert '"psi":0.333333333' in content and '"loss":null' in content


@pytest.mark.parametrize("slope", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("price", [0.005, 0.05])
def test_best_period_is_that_of_the_square_root_law_for_linear_ageing(slope: float, price: float) -> None:
    # D(k) = slope k, so the mean costs (c + slope P (P - 1) / 2) / P are least near sqrt(2 c / slope)
    period = best_period(slope * np.arange(60), price, 60)
    assert period is not None
    assert abs(period - np.sqrt(2 * price / slope)) <= 1


def test_models_that_do_not_age_are_never_trained_and_measured_ageing_replaces_the_expected() -> None:
    ages = np.repeat(np.arange(1, 30), 20)
    flat = ageing(ages, np.zeros(len(ages)), np.ones(len(ages)), 0.0005, 1.0)
    assert best_period(flat, 0.05, 60) is None
    rising = ageing(ages, 0.004 * ages, np.ones(len(ages)), 0.0005, 1.0)
    assert rising[20] == pytest.approx(0.08, rel=0.1)
    assert (np.diff(rising) >= 0).all()


@pytest.fixture(scope="module")
def pool() -> Pool:
    draws = np.random.default_rng(0)
    inputs = draws.normal(size=(4000, 6))
    return Pool.of(
        inputs, (draws.random(4000) < 1 / (1 + np.exp(-inputs @ draws.normal(size=6)))).astype(float)
    )


def test_made_history_repeats_by_seed_and_a_planted_shift_makes_old_models_worse(pool: Pool) -> None:
    plan = Plan(months=20, customers=300, shifts=1, size=1.5, window=4, label_lag=2)
    matrix, (shift,) = made_history(pool, plan, 7)
    again, _ = made_history(pool, plan, 7)
    assert np.array_equal(matrix.losses, again.losses, equal_nan=True)
    mean = matrix.mean
    stale = np.mean([mean[0, t] - mean[t, t] for t in range(shift + 7, 20)] or [mean[0, 19] - mean[19, 19]])
    assert stale > 0.05
    assert abs(np.mean([mean[0, t] - mean[t, t] for t in range(1, shift)])) < 0.02


def test_ours_costs_less_than_never_and_than_each_month_on_shifts(pool: Pool) -> None:
    matrix, _ = made_history(pool, Plan(months=30, customers=300, shifts=2, size=1.0, window=6), 3)
    [ours, never, monthly, best] = (
        of_policy(compare(matrix, [0.02]), name, 0.02) for name in ("ours", "never", "every 1", "best")
    )
    assert best.cost <= ours.cost < min(never.cost, monthly.cost)
    assert best.regret == 0 and best.captured == 1 and best.false == 0 and best.missed == 0


def test_corrupt_outcomes_change_no_earlier_decision_of_ours(pool: Pool) -> None:
    matrix, _ = made_history(pool, Plan(months=24, customers=200, shifts=2, size=1.0, window=4), 5)
    costs = Costs(1.0, 2.0, 0.5)
    clean = schedule_of(Governed(costs), matrix, 1)
    for t in (8, 14, 20):
        losses = matrix.losses.copy()
        losses[:, t - matrix.label_lag + 1 :] *= 9  # their outcomes are known after t
        corrupt = type(matrix)(matrix.moments, losses, matrix.drift, matrix.label_lag)
        changed = schedule_of(Governed(costs), corrupt, 1)
        assert [s for s in changed if s <= t] == [s for s in clean if s <= t]


def test_study_trains_only_on_outcomes_that_are_known_and_evaluates_all_later_moments() -> None:
    step, horizon = timedelta(days=14), timedelta(days=28)
    plan = StudyPlan(START + 4 * step, step, START)
    times = plan.moments(START + 12 * step, horizon)
    rows = pd.DataFrame(
        [
            (f"c{n}", at, (n + i) % 2, float(n))
            for i, at in enumerate(plan.snapshots(times))
            for n in range(6)
        ],
        columns=["user_id", "event_timestamp", "churned", "x"],
    )
    seen = []

    def learn(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
        seen.append((train["event_timestamp"].max(), test["event_timestamp"].min()))
        return np.full(len(test), 0.5)

    settings = load_settings(overrides=["features.horizon_days=28"])
    matrix = computed(rows, settings.features, times, plan, learn)
    assert matrix.label_lag == 2 and len(matrix.moments) == len(times) == 7
    assert all(
        newest + horizon <= moment == first for (newest, first), moment in zip(seen, times, strict=True)
    )
    assert matrix.mean[2, 5] == pytest.approx(np.log(2))
    few = StudyPlan(plan.first, step, START, window_steps=1)
    assert training_rows(rows["event_timestamp"], times[0], horizon, few).sum() == 6


def test_schedule_of_the_best_in_hindsight_is_not_beaten_by_any_cadence(pool: Pool) -> None:
    matrix, _ = made_history(pool, Plan(months=24, customers=200, shifts=2, size=0.8, window=4), 11)
    for row in compare(matrix, [0.005, 0.05]):
        assert row.regret >= -1e-9
    costs = Costs(1.0, 1.0, 0.0)
    assert len(best_schedule(matrix.total, costs)) < len(schedule_of(Cadence(1), matrix, 1))


def test_unknown_policy_is_refused_with_the_known_ones() -> None:
    settings = load_settings()
    with pytest.raises(ReplayError, match="take never, every:N, drift, performance, ours"):
        policy_of("every:0", settings.replay)
