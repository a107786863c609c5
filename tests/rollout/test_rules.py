"""All rules together: which judge, what each may spend, and that an error is never `advance`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from churn.settings import load_settings
from rollout.config import RolloutConfig, Stage
from rollout.evidence import COUNTS, Arm, Evidence
from rollout.rules import RULES, Rules, judge_all, rules_of, shares
from rollout.rules.answer import Found, answer
from rollout.rules.rule import Verdict
from support.rollout_evidence import beta_scores, scored, seen

PLAIN = load_settings().rollout
SHIPPED = PLAIN.model_copy(update={"labels": Path("labels.parquet"), "segments": ("country",)})
"""With something to judge for every rule."""


def test_every_configured_rule_is_there_in_order() -> None:
    assert [rule.name for rule in rules_of(SHIPPED)] == list(RULES) == list(Rules.model_fields)


def test_a_rule_that_has_nothing_to_judge_has_no_part_of_alpha() -> None:
    names = [rule.name for rule in rules_of(PLAIN)]
    assert names == [name for name in RULES if name not in ("outcomes", "segments")]
    assert shares(rules_of(PLAIN), 0.01)["error_rate"] == pytest.approx(0.01 * 4 / 9)
    # on a cluster customers are not known, whatever is configured for one machine
    cluster = SHIPPED.model_copy(update={"target": "knative"})
    assert [rule.name for rule in rules_of(cluster)] == names


def test_null_switches_a_rule_off_and_the_others_share_what_it_had() -> None:
    config = RolloutConfig(
        stages=(Stage(weight=100, max_s=1),), rules=Rules(latency=None, segments=None, outcomes=None)
    )
    rules = rules_of(config)
    assert [rule.name for rule in rules] == ["error_rate", "features", "score_shift", "decision_rate"]
    assert sum(shares(rules, 0.01).values()) == pytest.approx(0.01)


def test_alpha_is_split_and_errors_get_most_of_it() -> None:
    split = shares(rules_of(SHIPPED), 0.01)
    assert sum(split.values()) == pytest.approx(0.01)
    assert split["error_rate"] == max(split.values())
    assert min(split.values()) > 0
    assert shares((), 0.01) == {}


def test_an_identical_canary_advances_by_every_rule() -> None:
    evidence = seen(scored(beta_scores(1, 2000)), scored(beta_scores(2, 2000)))
    verdicts = judge_all(rules_of(SHIPPED), evidence, SHIPPED.alpha)
    assert [verdict.answer for verdict in verdicts] == ["advance"] * len(RULES)
    assert all(verdict.reason and "\n" not in verdict.reason for verdict in verdicts)


def test_no_evidence_is_not_yet_but_for_what_may_never_come() -> None:
    answers = {verdict.rule: verdict.answer for verdict in judge_all(rules_of(SHIPPED), Evidence(), 0.01)}
    assert {rule for rule, answer in answers.items() if answer == "advance"} == {"outcomes", "segments"}
    assert {answer for rule, answer in answers.items() if rule not in ("outcomes", "segments")} == {"not_yet"}


def test_numbers_can_always_be_written_as_json() -> None:
    for evidence in (Evidence(), seen(Arm(), Arm()), seen(scored(beta_scores(1, 90)), Arm(), weight=0)):
        for verdict in judge_all(rules_of(SHIPPED), evidence, SHIPPED.alpha):
            json.dumps(dict(verdict.numbers), allow_nan=False)


def test_evidence_that_is_not_a_number_is_never_a_yes() -> None:
    for found in (Found(math.nan, "text"), Found(0.0, "text", numbers={"canary": math.nan})):
        verdict = answer("rule", found, 0.01)
        assert verdict.answer == "not_yet"
        assert "not a number" in verdict.reason


class Broken:
    name = "broken"

    def judge(self, evidence: Evidence, alpha: float) -> Verdict:
        raise ZeroDivisionError("by nothing")


def test_a_rule_that_cannot_judge_answers_not_yet() -> None:
    (verdict,) = judge_all((Broken(),), Evidence(), 0.01)
    assert verdict.answer == "not_yet"
    assert "ZeroDivisionError: by nothing" in verdict.reason


def test_infinite_or_missing_numbers_anywhere_are_never_a_yes() -> None:
    good = scored(beta_scores(1, 200))
    for name in COUNTS:
        for value in (float("nan"), float("inf"), -1, None):
            broken = Arm(**({**good.__dict__, name: value}))
            answers = {verdict.answer for verdict in judge_all(rules_of(SHIPPED), seen(good, broken), 0.01)}
            assert "not_yet" in answers, (name, value)


def test_a_hundred_thousand_customers_are_judged_within_a_tick() -> None:
    """Of processor time, for other processes may take the machine; a tick is a second."""
    from time import process_time

    rows = 100_000
    stable, canary = scored(beta_scores(1, rows)), scored(beta_scores(2, rows))
    pairs = np.random.default_rng(0).normal(0, 0.01, rows)
    start = process_time()
    judge_all(rules_of(SHIPPED), seen(stable, canary, pairs=pairs), 0.01)
    assert process_time() - start < 1
