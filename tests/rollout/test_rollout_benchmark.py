"""The benchmark judges thousands of rollouts at once: it must agree with the rules for each."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import crowd, moments
from benchmarks.moments import World
from benchmarks.rollouts import error_rule_alone
from benchmarks.threshold_rules import Checks, checked, simulated, stopped, tuned
from churn.settings import load_settings
from rollout.config import RolloutConfig
from rollout.evidence import Arm, Blocks, Evidence, Window
from rollout.rules import judge_all, rules_of
from rollout.rules.error_rate import ErrorRateRule
from rollout.rules.latency import LatencyRule

CONFIG = load_settings().rollout.model_copy(
    update={"labels": Path("labels.parquet"), "segments": ("segment",)}
)
SHORT = RolloutConfig.model_validate(
    CONFIG.model_dump(mode="json")
    | {
        "stages": [
            {"weight": 0, "mirror": True, "min_s": 20, "max_s": 99},
            {"weight": 25, "min_s": 20, "max_s": 99},
            {"weight": 100, "min_s": 10, "max_s": 99},
        ],
        "watch_s": 20,
    }
)


def test_customers_rules_of_all_rollouts_at_once_are_those_of_the_product() -> None:
    judges, windows, compared = crowd.Judges(CONFIG), [], 0
    stage = None
    for seen in crowd.Simulation(CONFIG, 3, seed=5).looks():
        found = judges.look(seen, seen.stage is not stage)
        stage = seen.stage
        if not seen.last:
            continue
        windows.append(seen)
        for verdict in judge_all(rules_of(CONFIG), crowd.evidence_of(windows, 0), CONFIG.alpha):
            if verdict.rule not in found or "e_value" not in verdict.numbers:
                continue
            ours, expected = found[verdict.rule], np.log(verdict.numbers["e_value"])
            one = float(np.broadcast_to(ours, 3)[0])
            if verdict.rule == "outcomes":  # there the product rounds, which only weakens its evidence
                assert expected - 0.01 <= one <= expected + 1.5
            else:
                assert one == pytest.approx(expected, rel=0.03, abs=0.05), verdict
            compared += 1
    assert compared > 25


def arm_of(blocks: list[moments.Variant], edges: np.ndarray, by_customer: bool) -> Arm:
    requests, errors, raw = (
        np.array([getattr(block, of)[0] for block in blocks])
        for of in ("requests", "failures", "raw_failures")
    )
    beyond = np.array([block.beyond[0] for block in blocks]).reshape(len(blocks), len(edges))
    within = np.column_stack([requests[:, None] - beyond, requests])
    return Arm(
        requests=int(requests.sum()),
        errors=int(raw.sum()),
        failing=int(errors.sum()) if by_customer else None,
        blocks=Blocks(requests, errors, (*edges, math.inf), within),
    )


def test_moments_of_all_rollouts_at_once_are_judged_as_the_product_judges_one() -> None:
    world = World(broken=0.01, stalls_per_s=0.3, canary_times=1.6, canary_error_rate=0.02)
    rules = ErrorRateRule(SHORT.rules.error_rate), LatencyRule(SHORT.rules.latency)  # type: ignore[arg-type]
    made = moments.Simulation(SHORT, world, 2, seed=4)
    windows: dict[tuple[int, bool], list[moments.Block]] = {}
    for block in made.blocks():
        windows.setdefault((block.stage.weight, block.watch), []).append(block)
    evidence = Evidence(
        tuple(
            Window(
                weight,
                blocks[0].stage.mirror,
                stable=arm_of([b.stable for b in blocks], made.edges, not blocks[0].stage.mirror)
                if weight < 100
                else Arm(),
                canary=arm_of([b.canary for b in blocks], made.edges, not blocks[0].stage.mirror),
            )
            for (weight, _), blocks in windows.items()
        )
    )
    *_, (_, last) = moments.looks(SHORT, world, 2, seed=4)
    for rule in rules:
        e_value = rule.judge(evidence, 1e-30).numbers["e_value"]
        assert last[rule.name][0] == pytest.approx(math.log(e_value), rel=1e-6, abs=1e-6)


def test_bad_canaries_are_caught_and_good_ones_are_not() -> None:
    worlds = {
        "good": World(broken=0.01, stalls_per_s=0.2),
        "errors": World(canary_error_rate=0.05),
        "slow": World(canary_times=3.0),
        "median": World(canary_median_ms=20.0),
    }
    took = {name: moments.judged(CONFIG, world, 40, 7) for name, world in worlds.items()}
    caught = {
        name: np.isfinite(np.minimum(found["error_rate"], found["latency"])).mean()
        for name, found in took.items()
    }
    assert caught["errors"] == caught["slow"] == 1
    assert caught["good"] <= 0.05 and caught["median"] <= 0.05
    before = [np.isfinite(took["good"][name]).mean() for name in ("errors by request", "slow by request")]
    assert min(before) > 0.1, "what counting requests would have done"


def test_customers_who_ask_in_every_stage_take_no_good_canary_back() -> None:
    found = crowd.judged(CONFIG, 100, 3)
    assert {name: float(np.isfinite(took).mean()) for name, took in found.items()} == dict.fromkeys(
        found, 0.0
    )


def test_the_error_rule_alone_finds_a_threefold_rate() -> None:
    assert np.isfinite(error_rule_alone(CONFIG, (0.03, 0.01), CONFIG.alpha, 20, 300, 1)).mean() > 0.97
    assert np.isfinite(error_rule_alone(CONFIG, (0.01, 0.01), CONFIG.alpha, 20, 300, 1)).mean() < 0.03


def test_a_threshold_rule_stops_at_its_last_allowed_failure() -> None:
    seen = Checks(np.array([[3.0, 1, 3, 3], [1, 3, 1, 1]]), np.array([[10.0, 20, 30, 40]] * 2))
    assert stopped(seen, 1, False, 2).tolist() == [10, 20]
    assert stopped(seen, 2, False, 2).tolist() == [30, np.inf]
    assert stopped(seen, 2, True, 2).tolist() == [40, np.inf]


def test_tuning_stays_within_the_given_false_alarms() -> None:
    quiet = simulated(CONFIG.stages, (0.01, 0.01), False, 1000, seed=1)
    harm = simulated(CONFIG.stages, (0.03, 0.01), False, 1000, seed=2)
    rule = tuned([quiet], harm, (8, 16), True, 0.05)
    took = stopped(checked(quiet, rule.size, True), rule.failures, rule.in_a_row, rule.bound)
    assert np.isfinite(took).mean() <= 0.05
    assert rule.caught >= 0.99
