"""`churn report`: one page about the whole loop."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import whole
from churn.command import argument, command
from churn.commands.step import context_of

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "report",
    "one self-contained page: health, customers to call, timeline, checks, decisions, canaries, models",
    examples=(
        "churn report",
        "churn report --out report.html --customers 50",
        "churn report --customers 20 --source-ids",
    ),
    arguments=(
        argument("--out", type=Path, metavar="FILE", help="default: churn-loop.html in its reports"),
        argument(
            "--customers",
            type=whole,
            default=20,
            metavar="N",
            help="customers to call on the page, with reasons (default: %(default)s); 0: none",
        ),
        argument(
            "--source-ids",
            action="store_true",
            help="name these customers as the source does (needs the mask key; the page gets mode 600; it is"
            " recorded)",
        ),
    ),
)
def report(settings: Settings, arguments: Namespace) -> int:
    from pipelines.report.loop_page import write_loop_page

    out = arguments.out or settings.files.reports / "churn-loop.html"
    with console.steps(1) as shown:
        shown.start("report")
        context = context_of(settings, shown.describe)
        facts = write_loop_page(settings, out, arguments.customers, arguments.source_ids, shown.describe)
    if arguments.source_ids and facts.customers is not None:
        from pipelines.source_ids import record_naming

        record_naming(context, out, len(facts.customers.rows), facts.customers.as_of.isoformat())
    for line in facts.unread:
        console.err.print(f"not on the page: {console.escape(line)}", soft_wrap=True)
    console.out.print(f"Report: {out} ({out.stat().st_size / 1000:,.0f} KB)", soft_wrap=True)
    return 0
