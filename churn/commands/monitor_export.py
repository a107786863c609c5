"""`churn monitor export`: the process that Prometheus scrapes for monitoring, retraining and rollouts."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from churn import console
from churn.command import argument, command

if TYPE_CHECKING:
    from churn.settings import Settings

DAY_S = 86_400.0


@command(
    "monitor export",
    "serve what monitor, governor and rollouts recorded as metrics for Prometheus, until interrupted",
    examples=(
        "churn monitor export",
        "churn monitor export --address 127.0.0.1:0",
        "churn monitor export --profile exporter",
    ),
    arguments=(
        argument(
            "--address", metavar="HOST:PORT", help="default: monitoring.exporter.address; port 0: a free one"
        ),
    ),
)
def export(settings: Settings, arguments: Namespace) -> int:
    from monitoring import exporter
    from monitoring.targets import targets

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    over = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: over.set()) for number in signals}
    config, model = settings.monitoring.exporter, settings.serving.model_name
    made = exporter.Exporter(settings.rollout.database, model, DAY_S * settings.monitoring.every_days)
    try:
        address, serving = arguments.address or config.address, settings.files.serving
        with exporter.exporting(made, address, lambda: targets(serving)) as url:
            console.out.print(f"Metrics until interrupted (Ctrl-C): {url}", soft_wrap=True)
            exporter.export(made, over, config.refresh_s, lambda: datetime.now(UTC))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
