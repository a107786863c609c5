"""Judges a past rollout again by its stored counts, under the same or another configuration."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rollout.aftermath import after_promotion
from rollout.config import RolloutConfig
from rollout.observers.observer import Opened
from rollout.observers.recorded import Tallies
from rollout.rules import judge_all, rules_of
from rollout.rules.rule import Verdict
from rollout.state import Rollout


@dataclass(frozen=True)
class Judged:
    """The verdicts of the rules at one observation."""

    at: datetime
    weight: int
    """The canary's weight then, in percent."""
    canary_requests: int
    verdicts: tuple[Verdict, ...]

    @property
    def harm(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.answer == "roll_back")


def judge_again(
    rollout: Rollout, counts: Sequence[tuple[datetime, Mapping[str, Any]]], config: RolloutConfig
) -> Judged | None:
    """The first observation at which a rule answers `roll_back`, else the last one; None without any.

    `counts`: Store.observations. Rules, alpha and `block_s` are those of `config`; the stages are as they
    were.
    """
    last = None
    for last in looks_again(rollout, counts, config):
        if last.harm:
            break
    return last


def looks_again(
    rollout: Rollout, counts: Sequence[tuple[datetime, Mapping[str, Any]]], config: RolloutConfig
) -> Iterator[Judged]:
    tallies, rules = Tallies(config), rules_of(config)
    for at, change in counts:
        tallies.add(at, change)
        windows = _opened_by(rollout.windows, at)
        if not windows:
            continue
        evidence = tallies.evidence(windows, at)
        if rollout.promoted and len(windows) == len(rollout.windows):
            evidence = after_promotion(evidence)
        window = evidence.current
        verdicts = judge_all(rules, evidence, config.alpha)
        yield Judged(at, window.weight, window.canary.requests, verdicts)


def _opened_by(windows: Sequence[Opened], at: datetime) -> list[Opened]:
    """The windows as they were at that time."""
    return [
        replace(window, ended=None if window.ended is None or window.ended > at else window.ended)
        for window in windows
        if window.begun <= at
    ]
