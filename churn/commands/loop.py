"""`churn run`: everything, in order."""

from argparse import Namespace

from churn import console
from churn.commands.shown import show_answers, show_gates, show_models, show_rollout
from churn.commands.step import context_of, reporter
from churn.lock import alone
from churn.settings import Settings


def run(settings: Settings, arguments: Namespace) -> int:
    from pipelines.loop import TOTAL, run_loop

    with alone(settings.files), console.steps(TOTAL) as shown:
        context = context_of(settings, shown.say)
        record, answers, refusal = run_loop(
            context, arguments.force, shown.start, reporter(shown), not arguments.no_rollout
        )
    show_models(record)
    show_gates(record["gates"])
    if answers:
        console.pairs("Archive", record["archive"])
        show_answers(answers)
        show_rollout(record["rollout"])
    console.out.print(f"Report: {record['report']}\nFacts for machines: {settings.files.run_record}")
    if refusal is not None:
        raise refusal
    console.out.print("Next: [bold]churn serve[/] in one terminal, [bold]churn predict[/] in another")
    return 0
