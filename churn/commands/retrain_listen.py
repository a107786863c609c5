"""`churn retrain listen`: a webhook, for example of Alertmanager, that wakes the governor."""

from __future__ import annotations

import signal
import threading
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import port
from churn.command import argument, command
from churn.commands.step import context_of

if TYPE_CHECKING:
    from churn.settings import Settings

VARIABLE = "CHURN_RETRAIN_TOKEN"


@command(
    "retrain listen",
    "a webhook that wakes the governor: POST /wake with the header Authorization: Bearer TOKEN",
    examples=(
        "churn retrain listen --token-file secrets/retrain.token",
        "churn retrain listen --token-file secrets/retrain.token --port 9100",
    ),
    arguments=(
        argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"),
        argument("--port", type=port, default=9095, help="0: the system chooses (default: %(default)s)"),
        argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help=f"file of mode 600 with the token; default: the environment variable {VARIABLE}",
        ),
    ),
)
def listen(settings: Settings, arguments: Namespace) -> int:
    from pipelines.retraining.wake import wake
    from pipelines.retraining.webhook import Webhook, load_token

    over = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: over.set()) for number in signals}

    def work() -> str:
        woken = wake(context_of(settings, lambda message: None), "webhook")
        if woken.done is not None:
            return f"run {woken.done.run}: {woken.done.detail}"
        return woken.entry.decision.reason

    try:
        token = load_token(arguments.token_file, VARIABLE)
        with Webhook(arguments.host, arguments.port, token, work, console.err.print) as url:
            console.err.print(f"wake-ups for {settings.serving.model_name} at {url}/wake until interrupted")
            over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
