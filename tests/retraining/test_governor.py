"""When a model is trained: each trigger, what stands against it, and the sentence that a person reads."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import validated
from core.errors import ConfigError
from monitoring.findings import Cause, Severity
from retraining.config import Ageing, RetrainConfig
from retraining.decision import Action, Aged, Obstacle, Outcome, Trigger
from retraining.governor import decide
from support.retraining_situations import (
    CORRUPT,
    DRIFT,
    EARLY_HARM,
    HARM,
    attempt,
    day,
    evidence,
    finding,
    request,
    state,
    window,
)

POLICY = RetrainConfig()


def test_without_a_trigger_the_reason_names_all_numbers() -> None:
    decision = decide(POLICY, state(), evidence(window(40)), day(41))
    assert (decision.action, decision.trigger, decision.obstacle) == (Action.NO, None, None)
    assert decision.reason == (
        "No trigger holds: no harm was found, drift lasted 0 of the 3 checks needed, the last training was"
        " 41.0 of 90 days ago."
    )


def test_harm_on_matured_labels_starts_a_training() -> None:
    decision = decide(POLICY, state(), evidence(window(33), window(40, HARM)), day(40))
    assert (decision.action, decision.trigger) == (Action.YES, Trigger.PERFORMANCE)
    assert "avoidable_loss found something" in decision.reason


def test_harm_that_the_newest_check_did_not_find_again_still_counts() -> None:
    """A wake-up after the check that found it may have been lost."""
    assert decide(POLICY, state(), evidence(window(33, HARM), window(40)), day(40)).granted
    assert not decide(POLICY, state(), evidence(window(26, HARM), window(33), window(40)), day(40)).granted


def test_harm_on_early_labels_is_a_trigger_of_its_own() -> None:
    found = evidence(window(40, EARLY_HARM))
    assert decide(POLICY, state(), found, day(40)).trigger is Trigger.EARLY_LABELS
    off = POLICY.model_copy(update={"triggers": POLICY.triggers.model_copy(update={"early_labels": None})})
    assert decide(off, state(), found, day(40)).trigger is None


def test_drift_has_to_last_and_to_be_in_the_newest_check() -> None:
    lasting = [window(19, DRIFT), window(26), window(33, DRIFT), window(40, DRIFT)]
    assert decide(POLICY, state(), evidence(*lasting), day(40)).trigger is Trigger.DRIFT
    assert not decide(POLICY, state(), evidence(*lasting[:3]), day(40)).granted
    over = [window(19, DRIFT), window(26, DRIFT), window(33, DRIFT), window(40)]
    assert not decide(POLICY, state(), evidence(*over), day(40)).granted


def test_different_drifts_do_not_add_up() -> None:
    other = [finding(Cause.DRIFT, "psi", subject=name) for name in ("a", "b", "c")]
    found = evidence(*(window(19 + 7 * i, one) for i, one in enumerate(other)))
    decision = decide(POLICY, state(), found, day(40))
    assert not decision.granted
    assert decision.numbers["drifted_checks"] == 1


def test_a_symptom_of_another_finding_is_no_trigger() -> None:
    symptom = replace(HARM, explained_by="unit_change:amount")
    assert decide(POLICY, state(), evidence(window(40, symptom)), day(40)).trigger is None


def test_harm_of_another_version_is_no_trigger() -> None:
    found = evidence(window(40, HARM, version="before000000"))
    assert decide(POLICY, state(), found, day(40)).trigger is None


def test_what_led_to_a_run_leads_to_no_second_one() -> None:
    """Also where its candidate was refused: it takes a new check."""
    found = evidence(window(33), window(40, HARM))
    refused = state(attempt(40, 40.1, Outcome.REFUSED, evidence_at=40))
    assert decide(POLICY, refused, found, day(60)).trigger is None
    again = evidence(window(40, HARM), window(47, HARM))
    assert decide(POLICY, refused, again, day(47)).granted


def test_schedule() -> None:
    found = evidence(window(89))
    assert decide(POLICY, state(), found, day(89.99)).trigger is None
    assert decide(POLICY, state(), found, day(90)).trigger is Trigger.SCHEDULE
    refused = state(attempt(80, 80.1, Outcome.REFUSED))
    assert decide(POLICY, refused, found, day(95)).trigger is None, "a refused candidate was a training, too"


def test_an_unknown_time_of_training_is_due() -> None:
    assert decide(POLICY, state(trained=None), evidence(window(1)), day(1)).trigger is Trigger.SCHEDULE


AGEING = Ageing(step_days=10, value=1.0, cost=60, expected_weight=1e-6)
BY_AGEING = POLICY.model_copy(update={"triggers": POLICY.triggers.model_copy(update={"ageing": AGEING})})


def aged(nats_a_step: float, at: float = 80) -> list[Aged]:
    """Models of 1 to 20 steps, each of which costs so much more than the one before."""
    return [Aged(day(at), 10.0 * age, nats_a_step * age) for age in range(1, 21)]


@pytest.mark.parametrize(("nats", "customers"), [(0.004, 1000), (0.001, 1000), (0.004, 20_000)])
def test_a_training_is_due_at_the_period_that_costs_least(nats: float, customers: int) -> None:
    # a step costs 60/P + nats n (P - 1)/2 on average, which is least near P = sqrt(120 / (nats n))
    due = 10 * (np.sqrt(120 / (nats * customers)) - 0.5)
    for passed, granted in ((due - 11, False), (due + 11, True)):
        found = evidence(window(passed - 1), customers=customers, ageing=aged(nats))
        decision = decide(BY_AGEING, state(), found, day(passed))
        assert decision.granted is granted, decision.reason
        assert abs(decision.numbers["period_days"] - due) <= 10, "to the step"
    assert decision.trigger is Trigger.AGEING and "by measured ageing" in decision.reason


def test_measured_ageing_replaces_the_fixed_schedule() -> None:
    flat = [replace(one, nats=0.0) for one in aged(0.0) * 20]
    unmeasured, measured = (
        decide(BY_AGEING, state(), evidence(window(89), customers=50, ageing=ageing), day(90))
        for ageing in ((), flat)
    )
    assert unmeasured.trigger is Trigger.SCHEDULE
    assert measured.trigger is None and "one does not pay" in measured.reason


def test_the_newest_measurements_of_ageing_count_most() -> None:
    found = evidence(window(39), customers=1000, ageing=[*aged(0.0, at=-200), *aged(0.02, at=30)])
    assert decide(BY_AGEING, state(), found, day(40)).trigger is Trigger.AGEING


def test_enough_new_labels() -> None:
    triggers = POLICY.triggers.model_copy(update={"new_labels": 1000})
    policy = POLICY.model_copy(update={"triggers": triggers})
    assert decide(policy, state(), evidence(window(40), new=999), day(40)).trigger is None
    assert decide(policy, state(), evidence(window(40), new=1000), day(40)).trigger is Trigger.NEW_LABELS


@pytest.mark.parametrize("cause", [Cause.CORRUPTION, Cause.SKEW, Cause.STALENESS])
def test_wrong_data_veto_a_training(cause: Cause) -> None:
    found = evidence(window(40, HARM, finding(cause, "a_fault", Severity.PAGE)))
    decision = decide(POLICY, state(), found, day(40))
    assert (decision.action, decision.obstacle) == (Action.VETOED, Obstacle.VETO)
    assert decision.reason.startswith("performance asks for a training, but " + cause.value)


def test_a_corruption_vetoes_until_two_checks_are_clean() -> None:
    """Its rows are still in the history one check later."""
    assert (
        decide(POLICY, state(), evidence(window(33, CORRUPT), window(40, HARM)), day(40)).obstacle
        is Obstacle.VETO
    )
    clean = evidence(window(26, CORRUPT), window(33), window(40, HARM))
    assert decide(POLICY, state(), clean, day(40)).granted


def test_a_fault_for_the_digest_vetoes_nothing() -> None:
    mild = finding(Cause.CORRUPTION, "duplicates", Severity.DIGEST)
    assert decide(POLICY, state(), evidence(window(40, HARM, mild)), day(40)).granted


def test_data_that_no_check_has_seen_are_not_trained_on() -> None:
    never = decide(POLICY, state(), evidence(), day(100))
    assert (never.action, never.obstacle) == (Action.VETOED, Obstacle.VETO)
    assert "churn monitor" in never.reason
    old = decide(POLICY, state(), evidence(window(60)), day(100))
    assert "40.0 days old" in old.reason
    unmonitored = POLICY.vetoes.model_copy(update={"unmonitored_days": None})
    assert decide(POLICY.model_copy(update={"vetoes": unmonitored}), state(), evidence(), day(100)).granted


def test_one_run_at_a_time() -> None:
    running = state(attempt(39, None, Outcome.RUNNING))
    decision = decide(POLICY, running, evidence(window(40, HARM)), day(60))
    assert (decision.action, decision.obstacle) == (Action.NO, Obstacle.RUN)
    assert "run39" in decision.reason


def test_no_training_while_a_candidate_is_on_trial() -> None:
    decision = decide(POLICY, state(rollout="r1"), evidence(window(40, HARM)), day(40))
    assert decision.obstacle is Obstacle.ROLLOUT


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.FAILED, Outcome.ROLLED_OUT])
def test_cooldown_after_any_run(outcome: Outcome) -> None:
    before = state(attempt(39, 40, outcome, evidence_at=39))
    found = evidence(window(40.5, HARM))
    assert decide(POLICY, before, found, day(40.99)).obstacle is Obstacle.COOLDOWN
    assert decide(POLICY, before, found, day(41)).granted


def test_too_few_labels_and_the_same_labels() -> None:
    few = decide(POLICY, state(), evidence(window(40, HARM), matured=999), day(40))
    assert few.obstacle is Obstacle.FEW_LABELS
    assert "999 labels have matured, a training needs 1,000" in few.reason
    assert (
        decide(POLICY, state(), evidence(window(40, HARM), new=0), day(40)).obstacle is Obstacle.SAME_LABELS
    )


def test_a_person_is_bound_by_veto_and_by_a_run_only() -> None:
    asked = request(40)
    cooling = state(attempt(39, 39.9, Outcome.REFUSED), attempt(39.5, 39.95, Outcome.REFUSED))
    decision = decide(POLICY, cooling, evidence(window(39), matured=1, new=0, request=asked), day(40))
    assert (decision.action, decision.trigger) == (Action.YES, Trigger.PERSON)
    assert decision.reason == "ada asked for it: a new tariff began."
    vetoed = evidence(window(39, CORRUPT), request=asked)
    assert decide(POLICY, state(), vetoed, day(40)).action is Action.VETOED
    override = evidence(window(39, CORRUPT), request=request(40, override_veto=True))
    assert decide(POLICY, state(), override, day(40)).granted
    running = state(attempt(39, None, Outcome.RUNNING))
    assert decide(POLICY, running, override, day(40)).obstacle is Obstacle.RUN


def test_a_condition_that_can_never_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"triggers.drift: windows: 5 is more than of: 4"):
        validated(RetrainConfig, {"triggers": {"drift": {"windows": 5, "of": 4}}})


# brute force: cooldown and budget, replayed hour by hour against a model that only counts

HOURS = st.lists(st.booleans(), min_size=1, max_size=400)


@given(
    asks=HOURS,
    cooldown=st.integers(0, 60),
    runs=st.integers(1, 4),
    days=st.integers(1, 9),
    length=st.integers(0, 30),
    refused=st.booleans(),
)
def test_cooldown_and_budget_equal_a_model_that_counts_hours(
    asks: list[bool], cooldown: int, runs: int, days: int, length: int, refused: bool
) -> None:
    triggers = {"performance": {"windows": 1, "of": 1}, "schedule_days": None, "drift": None}
    policy = validated(
        RetrainConfig,
        {
            "triggers": triggers,
            "cooldown_hours": cooldown,
            "budget": {"runs": runs, "days": days},
            "minimum_new_labels": 0,
        },
    )
    outcome = Outcome.REFUSED if refused else Outcome.ROLLED_OUT
    granted: list[int] = []
    expected: list[int] = []
    for hour, asked in enumerate(asks):
        # the second implementation: arrays of hours, no dates
        free = not expected or hour >= expected[-1] + length + cooldown
        done = not expected or hour >= expected[-1] + length
        if asked and free and done and sum(hour - start < 24 * days for start in expected) < runs:
            expected.append(hour)
        attempts = [
            attempt(
                start / 24,
                (start + length) / 24 if hour >= start + length else None,
                outcome if hour >= start + length else Outcome.RUNNING,
            )
            for start in granted
        ]
        now = day(0) + timedelta(hours=hour)
        found = evidence(window(hour / 24, *([HARM] if asked else [])))
        if decide(policy, state(*attempts), found, now).granted:
            granted.append(hour)
    assert granted == expected
