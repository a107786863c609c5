"""`churn doctor`: checks the installation."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.command import JSON, argument, command

if TYPE_CHECKING:
    from churn.settings import Settings
    from pipelines.doctor.check import Named
    from pipelines.doctor.examination import Examined

STYLES = {"ok": "green", "warning": "yellow", "broken": "bold red"}


@command(
    "doctor",
    "check the installation: packages, secrets, stores, models, ports; exit code 1 when something is broken",
    examples=("churn doctor", "churn doctor --json", "churn doctor --cluster --profile production"),
    arguments=(
        JSON,
        argument(
            "--cluster",
            action="store_true",
            help="check the cluster of rollout.kserve instead: KServe, gateway, secrets, stores, the model",
        ),
    ),
)
def doctor(settings: Settings, arguments: Namespace) -> int:
    from pipelines.doctor.check import Installation
    from pipelines.doctor.checks import CHECKS
    from pipelines.doctor.examination import examine, is_broken

    installation = Installation(settings, lambda: datetime.now(UTC))
    checks: Sequence[Named] = CHECKS
    if arguments.cluster:
        from pipelines.doctor.cluster.checks import cluster_checks

        checks = cluster_checks(installation)
    found = []
    for examined in examine(installation, checks):
        found.append(examined)
        if not arguments.json:
            _show(examined)
    if arguments.json:
        console.out.print_json(json.dumps([_record(one) for one in found]))
    elif not is_broken(found):
        console.out.print("Nothing is broken.")
    return 1 if is_broken(found) else 0


def _show(examined: Examined) -> None:
    """One line, and a second one with the remedy."""
    result = examined.result
    state = f"[{STYLES[result.state]}]{result.state.value:<8}[/]"
    console.out.print(f"{state} {examined.name:<20} {console.escape(result.detail)}", soft_wrap=True)
    if result.remedy:
        console.out.print(f"{'':<29} [dim]mend it:[/] {console.escape(result.remedy)}", soft_wrap=True)


def _record(examined: Examined) -> dict[str, str]:
    result = examined.result
    return {
        "name": examined.name,
        "state": result.state.value,
        "detail": result.detail,
        "remedy": result.remedy,
    }
