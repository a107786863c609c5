"""Counts of each look: added up to what was seen, cut into blocks of time, and judged again."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rollout.aftermath import after_promotion
from rollout.again import judge_again, looks_again
from rollout.config import RolloutConfig
from rollout.counts import Tally, counted, grown
from rollout.evidence import COUNTS, Arm, Evidence, Labelled, Window
from rollout.observers.observer import Opened
from rollout.observers.recorded import Recorded
from rollout.records import arm_record
from rollout.rules import judge_all, rules_of
from rollout.state import Rollout, plan_of
from rollout.targets.target import Candidate

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
CONFIG = RolloutConfig.model_validate(
    {"stages": [{"weight": 0, "mirror": True, "max_s": 60}, {"weight": 100, "max_s": 60}], "block_s": 2}
)
SHADOW = Opened(0, True, NOON)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Growing:
    """An observer of a shadow whose canary fails on a tenth, with scores, segments and outcomes."""

    def __init__(self, errors: float = 0.1) -> None:
        self.errors, self.anew_at = errors, math.inf

    def mark(self) -> dict[str, float]:
        return {}

    def observe(self, windows: Sequence[Opened], now: datetime) -> Evidence:
        seconds = (now - NOON).total_seconds()
        seen = int(10 * (seconds if seconds < self.anew_at else seconds - self.anew_at))
        scores = np.round(np.random.default_rng(1).random(seen), 4)
        arm = Arm(
            requests=seen,
            latency_ms={5.0: seen // 2, 300.0: seen - seen // 10, 900.0: seen, math.inf: seen},
            customers=seen,
            scores=scores,
            segments={"country=d.e": scores[::2], "country=fr": scores[1::2]},
            labelled=Labelled(scores[::5], (scores[::5] > 0.5).astype(float)),
        )
        canary = replace(arm, errors=int(seen * self.errors), failing=int(seen * self.errors / 2))
        return Evidence((Window(0, True, seconds, replace(arm, failing=0), canary, pairs=scores * 0),))


def test_what_was_counted_comes_back_as_it_was() -> None:
    recorded, inner = Recorded(Growing(), CONFIG), Growing()
    for second in range(1, 10):
        (seen,) = recorded.observe([SHADOW], at(second)).windows
    (expected,) = inner.observe([SHADOW], at(9)).windows
    for name in ("stable", "canary"):
        found, wanted = getattr(seen, name), getattr(expected, name)
        assert (found.requests, found.errors, found.failing) == (
            wanted.requests,
            wanted.errors,
            wanted.failing,
        )
        assert found.latency_ms == wanted.latency_ms
        assert found.slow == 9, "slower than the objective of 250 ms: by the histogram"
        assert np.array_equal(np.sort(wanted.scores), np.sort(found.scores))
        assert list(found.segments) == list(wanted.segments)
        assert set(wanted.segments["country=d.e"]) == set(found.segments["country=d.e"])
        assert len(found.labelled.scores) == len(wanted.labelled.scores)
        assert found.labelled.churned.sum() == wanted.labelled.churned.sum()
    assert np.array_equal(seen.pairs, expected.pairs)


def test_every_count_is_stored_and_shown_by_its_name() -> None:
    """The names are those of the rows that earlier releases wrote; a count that a row lacks is 0."""
    names = ["requests", "errors", "slow", "customers", "missing", "stale", "degraded", "high_risk"]
    assert list(COUNTS) == names
    numbers = {name: 9 - number for number, name in enumerate(names)}
    stored = counted(Window(5, canary=Arm(**numbers)))
    assert stored == {f"canary.{name}": number for name, number in numbers.items()}
    tally = Tally(2.0)
    tally.add({**stored, "canary.of_a_later_release": 3.0}, 1.0)
    found = tally.window(5, False, 1.0, False, 250.0)
    assert [arm_record(found.canary)[name] for name in names] == list(numbers.values())
    assert set(tally.blocks[0]) == {"canary.requests", "canary.errors", "canary.slow"}, "of the proxy alone"
    (watched,) = after_promotion(Evidence((replace(found, stable=found.canary),))).windows
    assert [getattr(watched.canary, name) for name in names] == [18, 16, 14, 12, 10, 8, 6, 0]


def test_only_blocks_that_are_over_are_judged() -> None:
    recorded = Recorded(Growing(), CONFIG)
    for second in range(1, 6):
        (seen,) = recorded.observe([SHADOW], at(second)).windows
    assert seen.canary.requests == 50
    assert seen.canary.blocks.edges_ms == (5.0, 300.0, 900.0, math.inf), "empty ones too"
    assert seen.canary.blocks.slower(250).events.tolist() == [2, 2]
    assert seen.canary.blocks.slower(800).total.tolist() == [20, 20]
    assert seen.canary.blocks.requests.tolist() == [20, 20]
    assert seen.canary.blocks.errors.tolist() == [1, 1], "customers, where they are known"
    over = replace(SHADOW, ended=at(5))
    (seen,) = recorded.observe([over], at(6)).windows
    assert seen.canary.blocks.requests.sum() == 60


def test_a_proxy_that_began_anew_loses_nothing() -> None:
    inner = Growing()
    recorded = Recorded(inner, CONFIG)
    recorded.observe([SHADOW], at(4))
    inner.anew_at = 4
    for second in (5, 6, 7):
        (seen,) = recorded.observe([SHADOW], at(second)).windows
        assert seen.canary.requests == 10 * second
    assert seen.canary.customers == 30, "the log is read, not counted"


def test_a_count_that_is_a_little_late_is_no_new_proxy() -> None:
    before = {"canary.requests": 50.0, "canary.errors": 5.0, "canary.failing": 3.0}
    now = {"canary.requests": 49.0, "canary.errors": 6.0, "canary.failing": 2.0}
    assert grown(before, now) == {"canary.errors": 1.0, "canary.failing": -1.0}


def test_a_look_that_could_not_be_saved_is_returned_again_and_a_new_controller_continues() -> None:
    first = Recorded(Growing(), CONFIG)
    first.observe([SHADOW], at(1))
    first.saved()
    first.observe([SHADOW], at(2))
    assert list(first.unsaved()) == [at(2)]
    first.observe([SHADOW], at(3))
    assert list(first.unsaved()) == [at(2), at(3)]
    looks = json.loads(
        json.dumps([[moment.isoformat(), change] for moment, change in first.unsaved().items()])
    )
    second = Recorded(
        Growing(), CONFIG, [(datetime.fromisoformat(moment), change) for moment, change in looks]
    )
    (seen,) = second.observe([SHADOW], at(4)).windows
    assert seen.canary.requests == 40 and seen.canary.customers == 40


def test_what_did_not_change_is_not_stored() -> None:
    (window,) = Growing().observe([SHADOW], at(5)).windows
    assert grown(counted(window), counted(window)) == {}
    assert not any("user" in name for name in counted(window))


def rollout(windows: tuple[Opened, ...], **known: object) -> Rollout:
    candidate = Candidate("a.mar", "a" * 64, "a" * 12)
    plain = Rollout(
        "r", "churn", candidate, None, "stage", 0, False, windows, NOON, "ada", "", plan_of(CONFIG), NOON
    )
    return replace(plain, **known)  # type: ignore[arg-type]


def test_a_past_rollout_is_judged_again_as_it_was_and_under_another_policy() -> None:
    recorded, looks, live = Recorded(Growing(), CONFIG), [], None
    for second in range(1, 60):
        evidence = recorded.observe([SHADOW], at(second))
        looks += list(recorded.unsaved().items())
        recorded.saved()
        if live is None and any(
            v.answer == "roll_back" for v in judge_all(rules_of(CONFIG), evidence, CONFIG.alpha)
        ):
            live = at(second)
    past = rollout((SHADOW,))
    again = judge_again(past, looks, CONFIG)
    assert again is not None and again.at == live
    assert [verdict.rule for verdict in again.harm] == ["error_rate"]
    plain = CONFIG.model_dump(mode="json")
    tolerant = RolloutConfig.model_validate(plain | {"rules": {"error_rate": {"tolerance": 0.2}}})
    spared = judge_again(past, looks, tolerant)
    assert spared is not None and not spared.harm and spared.canary_requests == 590
    strict = RolloutConfig.model_validate(CONFIG.model_dump(mode="json") | {"alpha": 1e-9})
    later = judge_again(past, looks, strict)
    assert later is not None and live is not None and later.at > live
    assert judge_again(past, [], CONFIG) is None


def test_after_promotion_it_is_judged_as_the_watch_was() -> None:
    recorded, looks = Recorded(Growing(), CONFIG), []
    for second in range(1, 20):
        recorded.observe([SHADOW], at(second))
        looks += list(recorded.unsaved().items())
        recorded.saved()
    watch = {at(20).isoformat(): {"stable.requests": 100.0, "stable.errors": 90.0}}
    promoted = rollout((replace(SHADOW, ended=at(20)), Opened(100, False, at(20))), promoted=True)
    *_, last = looks_again(promoted, [*looks, (at(25), watch)], CONFIG)
    assert (last.weight, last.canary_requests) == (100, 100)


@pytest.mark.parametrize("number", [0.0, 1.0, 0.00005, 0.25])
def test_scores_are_stored_to_four_digits(number: float) -> None:
    (looks,) = counted(Window(1, canary=Arm(scores=np.array([number]))))
    assert float(looks.rpartition(".")[2]) / 10_000 == pytest.approx(number, abs=5e-5)
