"""`churn retrain`: lets the governor decide whether a model is trained, and carries the training out."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from churn import console
from churn.argument_types import moment
from churn.command import JSON, argument, command
from churn.commands.step import context_of, who
from core.errors import ConfigError

if TYPE_CHECKING:
    from churn.settings import Settings
    from pipelines.retraining.runner import Done
    from retraining.decision import Decision
    from retraining.ledger import Entry, Grade

AS_OF = argument("--as-of", type=moment, metavar="DATE", help="the time of the decision, UTC; default: now")


@command(
    "retrain",
    "let the governor decide from checks, labels and past runs, and train when it grants a run; exit code 3"
    " when the gates refuse the candidate",
    examples=(
        "churn retrain",
        "churn retrain --dry-run",
        'churn retrain --force --reason "a new tariff began"',
    ),
    arguments=(
        argument("--dry-run", action="store_true", help="state what would happen and why; write nothing"),
        argument("--force", action="store_true", help="train without a trigger, cooldown and budget"),
        argument("--reason", metavar="TEXT", help="why; recorded with your name; required with --force"),
        argument(
            "--override-veto", action="store_true", help="with --force: train although the data are wrong"
        ),
        argument(
            "--woken-by", default="command", metavar="NAME", help="what gave this command, for the ledger"
        ),
        AS_OF,
        JSON,
    ),
)
def retrain(settings: Settings, arguments: Namespace) -> int:
    from pipelines.retraining.wake import open_ledger, wake, would_decide

    if arguments.force and not arguments.reason:
        raise ConfigError("--force: needs --reason TEXT, which is recorded with your name")
    if arguments.override_veto and not arguments.force:
        raise ConfigError("--override-veto: only with --force --reason TEXT")
    with console.err.status("retraining") as shown:
        context = _context(settings, arguments, shown.update)
        if arguments.dry_run:
            request = (who(), arguments.reason, arguments.override_veto) if arguments.force else None
            decision = would_decide(context, request)
            _show_decision(decision, "Would be decided now; nothing was written", arguments.json)
            return 0
        if arguments.force:
            model = settings.serving.model_name
            ask = open_ledger(context).ask
            ask(model, who(), arguments.reason, arguments.override_veto, context.as_of)
        woken = wake(context, arguments.woken_by, shown.update)
    title = f"Decision {woken.entry.number}" + ("" if woken.entry.is_new else ", made before")
    _show_decision(woken.entry.decision, title, arguments.json, woken.done)
    if woken.held and not arguments.json:
        console.err.print(woken.held)
    return _exit_code(woken.done)


@command(
    "retrain resume",
    "continue the run that a crash has stopped, at the step that was not complete",
    examples=("churn retrain resume",),
)
def resume(settings: Settings, arguments: Namespace) -> int:
    from pipelines.retraining.wake import resume as go_on

    with console.err.status("retraining") as shown:
        done = go_on(context_of(settings, shown.update), shown.update)
    if done is None:
        console.out.print("No run is open.")
        return 0
    console.out.print(f"Run {done.run}: {_plain(done.outcome.value)}. {done.detail}", soft_wrap=True)
    return _exit_code(done)


@command(
    "retrain status",
    "the last decision, the run that is open and its steps",
    examples=("churn retrain status", "churn retrain status --json"),
    arguments=(JSON,),
)
def status(settings: Settings, arguments: Namespace) -> int:
    from pipelines.retraining.wake import open_ledger

    context = context_of(settings, lambda message: None)
    ledger, model = open_ledger(context), settings.serving.model_name
    entries, runs = ledger.entries(model), ledger.runs(model)
    last = runs[-1] if runs else None
    record: dict[str, Any] = {
        "decision": _entry_record(entries[-1], None) if entries else None,
        "run": None
        if last is None
        else {
            "id": last.id,
            "outcome": last.outcome.value,
            "detail": last.detail,
            "started": last.started.isoformat(),
            "ended": None if last.ended is None else last.ended.isoformat(),
            "version": None if last.candidate is None else last.candidate.version,
            "rollout": last.rollout,
            "steps": [
                {"step": event.step, "token": event.token, "what": event.what, "at": event.at.isoformat()}
                for event in ledger.steps(last.id)
            ],
        },
        "runner": ledger.token_holder(model, context.now()),
    }
    if arguments.json:
        console.out.print_json(json.dumps(record))
        return 0
    if not entries:
        console.out.print("Nothing was decided yet; run [bold]churn retrain --dry-run[/]")
        return 0
    _show_decision(entries[-1].decision, f"Decision {entries[-1].number} of {entries[-1].at:%Y-%m-%d %H:%M}")
    if record["run"] is not None:
        steps = record["run"].pop("steps")
        console.pairs("Last run", {**record["run"], "runs in": record["runner"] or "no process"})
        rows = [(one["step"], one["what"], one["token"], one["at"]) for one in steps]
        console.table("Its steps", ("step", "", "token", "at"), rows)
    return 0


@command(
    "retrain ledger",
    "every decision with its reason and its later grade; --verify derives each again from its evidence",
    examples=("churn retrain ledger", "churn retrain ledger --verify", "churn retrain ledger --grade --json"),
    arguments=(
        argument("--verify", action="store_true", help="exit code 1 if a row differs"),
        argument("--grade", action="store_true", help="first grade the decisions whose labels have matured"),
        AS_OF,
        JSON,
    ),
)
def ledger(settings: Settings, arguments: Namespace) -> int:
    from pipelines.retraining.wake import open_ledger
    from retraining.ledger import derived_again

    context = _context(settings, arguments, lambda message: None)
    store, model = open_ledger(context), settings.serving.model_name
    if arguments.grade:
        from pipelines.retraining.grades import grade_matured

        with console.err.status("grading") as shown:
            context = _context(settings, arguments, shown.update)
            graded = len(list(grade_matured(context, store, context.as_of)))
        console.err.print(f"{graded} decisions were graded")
    entries, grades = store.entries(model), store.grades(model)
    if arguments.json:
        console.out.print_json(
            json.dumps([_entry_record(entry, grades.get(entry.number)) for entry in entries])
        )
    else:
        _show_entries(entries, grades)
    if not arguments.verify:
        return 0
    different = {entry.number: names for entry in entries if (names := derived_again(entry))}
    for number, names in different.items():
        console.err.print(f"decision {number}: {', '.join(names)} cannot be derived again from its evidence")
    equal = len(entries) - len(different)
    console.err.print(f"{equal} of {len(entries)} decisions derived again from their evidence are equal")
    return 1 if different else 0


def _context(settings: Settings, arguments: Namespace, report: Any) -> Any:
    from dataclasses import replace

    context = context_of(settings, report)
    return context if arguments.as_of is None else replace(context, as_of=arguments.as_of)


def _exit_code(done: Done | None) -> int:
    return 0 if done is None or done.refusal is None else done.refusal.exit_code


def _show_decision(decision: Decision, title: str, as_json: bool = False, done: Done | None = None) -> None:
    if as_json:
        run = None if done is None else {"id": done.run, "outcome": done.outcome.value, "detail": done.detail,
                                         "rollout": done.rollout}  # fmt: skip
        console.out.print_json(json.dumps({**_decision_record(decision), "run": run}))
        return
    numbers = {name.replace("_", " "): f"{value:g}" for name, value in decision.numbers.items()}
    console.pairs(title, {"answer": decision.action.value, "why": decision.reason, **numbers})
    if done is not None:
        console.out.print(f"Run {done.run}: {_plain(done.outcome.value)}. {done.detail}", soft_wrap=True)


def _decision_record(decision: Decision) -> dict[str, Any]:
    return {
        "action": decision.action.value,
        "trigger": decision.trigger.value if decision.trigger else None,
        "obstacle": decision.obstacle.value if decision.obstacle else None,
        "reason": decision.reason,
        "numbers": dict(decision.numbers),
    }


def _entry_record(entry: Entry, grade: Grade | None) -> dict[str, Any]:
    graded = None if grade is None else {"grade": grade.grade, "reason": grade.reason,
                                         "numbers": dict(grade.numbers)}  # fmt: skip
    return {
        "number": entry.number,
        "at": entry.at.isoformat(),
        "woken_by": entry.woken_by,
        **_decision_record(entry.decision),
        "evidence_sha256": entry.evidence_sha256,
        "grade": graded,
    }


def _show_entries(entries: list[Entry], grades: dict[int, Grade]) -> None:
    rows = [
        (
            entry.number,
            f"{entry.at:%Y-%m-%d %H:%M}",
            entry.decision.action.value,
            entry.decision.reason,
            grades[entry.number].grade if entry.number in grades else "",
        )
        for entry in entries
    ]
    console.table("Decisions about training", ("", "at", "answer", "why", "grade"), rows)


def _plain(text: str) -> str:
    return text.replace("_", " ")
