"""`churn rollout history` and `judge`: the decisions of a rollout, and those of today's rules on it."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from rich.padding import Padding

from churn import console
from churn.command import JSON, argument, command
from churn.commands.rollout.controlled import TAKEN_BACK, open_store

if TYPE_CHECKING:
    from churn.settings import Settings
    from rollout.state import Rollout
    from rollout.store import Store

ID = argument("id", nargs="?", metavar="ID", help="of a rollout; default: the newest")


@command(
    "rollout history",
    "every decision with its reason: who, when, at which weight",
    examples=("churn rollout history", "churn rollout history --all", "churn rollout history --json"),
    arguments=(
        ID,
        argument("--all", action="store_true", help="a line a rollout instead"),
        argument("--json", action="store_true", help="for machines, with all numbers and verdicts"),
    ),
)
def history(settings: Settings, arguments: Namespace) -> int:
    store = open_store(settings)
    if arguments.all:
        _show_rollouts(store.all(settings.serving.model_name), arguments.json)
    else:
        _show_events(store, _chosen(settings, store, arguments), arguments.json)
    return 0


@command(
    "rollout judge",
    "judge a past rollout again, by what was counted then and the rules of today's settings",
    examples=(
        "churn rollout judge",
        "churn rollout judge 20261126-120000-0123ab-4f2e --set rollout.alpha=0.001",
    ),
    arguments=(ID, JSON),
)
def judge(settings: Settings, arguments: Namespace) -> int:
    """Apply rules, alpha and blocks of these settings to the recorded counts. Exit code 3: rolled back."""
    from rollout.again import judge_again
    from rollout.errors import RolloutError
    from rollout.records import verdict_record

    store = open_store(settings)
    rollout = _chosen(settings, store, arguments)
    judged = None
    if rollout is not None:
        judged = judge_again(rollout, store.observations(rollout.id), settings.rollout)
    if rollout is None or judged is None:
        raise RolloutError(
            "rollout judge: nothing was counted yet; `churn rollout history --all` lists the rollouts"
        )
    seconds = (judged.at - rollout.started).total_seconds()
    if arguments.json:
        record = {
            "rollout": rollout.id,
            "phase": rollout.phase,
            "rolled_back": bool(judged.harm),
            "at": judged.at.isoformat(),
            "seconds": seconds,
            "weight": judged.weight,
            "canary_requests": judged.canary_requests,
            "verdicts": [verdict_record(verdict) for verdict in judged.verdicts],
        }
        console.out.print_json(json.dumps(record))
    else:
        what = "rolled back" if judged.harm else "not rolled back"
        title = (
            f"Rollout {rollout.id} ({rollout.phase.replace('_', ' ')}) would have been {what}: after"
            f" {seconds:,.0f} s, at {judged.weight} %, {judged.canary_requests:,} canary requests in that"
            " stage"
        )
        rows = [(v.rule, v.answer.replace("_", " "), v.reason) for v in judged.verdicts]
        console.table(title, ("rule", "answer", "why"), rows)
    return TAKEN_BACK if judged.harm else 0


def _chosen(settings: Settings, store: Store, arguments: Namespace) -> Rollout | None:
    """The rollout of the argument ID, or the newest; None when there is none."""
    return store.load(arguments.id) if arguments.id else store.newest(settings.serving.model_name)


def _show_rollouts(rollouts: list[Rollout], as_json: bool) -> None:
    from rollout.records import rollout_record

    if as_json:
        console.out.print_json(json.dumps([rollout_record(rollout) for rollout in rollouts]))
        return
    rows = [(r.id, r.candidate.version, r.phase.replace("_", " "), r.by, r.outcome) for r in rollouts]
    console.table("Rollouts", ("id", "version", "phase", "by", "outcome"), rows)


def _show_events(store: Store, rollout: Rollout | None, as_json: bool) -> None:
    from rollout.records import event_record, rollout_record

    events = [] if rollout is None else store.history(rollout.id)
    if as_json:
        record = None if rollout is None else rollout_record(rollout)
        content = {"rollout": record, "events": [event_record(event) for event in events]}
        console.out.print_json(json.dumps(content))
        return
    console.out.print("[bold]" + ("Rollouts" if rollout is None else f"Rollout {rollout.id}") + "[/]")
    for event in events:
        share = "shadow" if event.mirror else f"{event.weight} %"
        done = "" if event.done else "  [yellow]not confirmed[/]"
        console.out.print(
            f"{event.sequence:>3}  {event.at:%Y-%m-%d %H:%M:%S}  [bold]{event.action.replace('_', ' ')}[/]"
            f"  {share}  by {console.escape(event.who)}{done}",
            soft_wrap=True,
        )
        # a reason is a sentence, which no column is wide enough for
        console.out.print(Padding(console.escape(event.reason), (0, 0, 0, 5)))
