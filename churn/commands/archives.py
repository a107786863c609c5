"""`churn score` and `churn verify`: a list for who calls customers, facts for who installs models."""

from argparse import Namespace

from churn import console
from churn.commands.step import context_of
from churn.settings import Settings
from data.config import utc_text


def score(settings: Settings, arguments: Namespace) -> int:
    from pipelines.score import ScoreRequest, score_customers

    with console.bar("customers") as shown:
        wanted = ScoreRequest(
            arguments.out, arguments.as_of, arguments.top, arguments.reasons, arguments.source_ids
        )
        done = score_customers(settings, wanted, shown.say, shown.show)
    if arguments.source_ids:
        from pipelines.source_ids import record_naming

        context = context_of(settings, shown.say)
        record_naming(context, arguments.out, done.ranked.rows, utc_text(done.as_of))
    facts = {
        "customers scored": f"{done.ranked.scored:,}",
        "rows written": f"{done.ranked.rows:,}",
        "as of": f"{done.as_of:%Y-%m-%d %H:%M} UTC",
        "model": done.model_version,
    }
    console.pairs("Scores", facts)
    console.out.print(f"Ranked by expected value: {arguments.out}", soft_wrap=True)
    return 0


def verify(settings: Settings, arguments: Namespace) -> int:
    from pipelines.verified import verified

    checked = verified(settings, arguments.file, arguments.sha256)
    console.table(
        f"{arguments.file.name} holds",
        ("check", "found"),
        checked.checks,
    )
    return 0
