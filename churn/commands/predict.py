"""`churn predict`: requests predictions from the running server."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command
from churn.commands.shown import show_answers
from churn.commands.step import identifiers

if TYPE_CHECKING:
    from churn.settings import Settings


@command(
    "predict",
    "ask the running server about customers",
    examples=("churn predict 42", "churn predict 42 1001 --json"),
    arguments=(
        argument("user_id", nargs="+", help="identifiers as they stand in the source"),
        argument("--json", action="store_true", help="print the answers as JSON, with their features"),
    ),
)
def predict(settings: Settings, arguments: Namespace) -> int:
    """Return 1 if one of the answers is an error."""
    from serving.client import key_for, running
    from serving.client import predict as request
    from serving.gateway.tls import own_client

    server = running(settings.files)
    answers = request(
        server["inference"],
        server["model"],
        identifiers(settings, arguments.user_id),
        key_for(server, settings.files),
        verify=own_client(server),
    )
    if arguments.json:
        console.out.print_json(json.dumps(answers))
    else:
        show_answers(answers)
    return 1 if any("error" in answer for answer in answers) else 0
