"""`churn serve` and `churn reload`: the server of this machine, and a new version on it."""

from __future__ import annotations

import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

from churn import console
from churn.argument_types import moment
from churn.command import argument, command
from churn.commands.step import who
from core.errors import ChurnError, ServingError

if TYPE_CHECKING:
    from churn.settings import Settings
    from pipelines.served import Served
    from serving.supervisor import Supervisor

TICK_S = 0.2
CHANGE_TIMEOUT_S = 300.0


@command(
    "serve",
    "run TorchServe behind the gateway on this machine until interrupted",
    examples=(
        "churn serve",
        "churn serve --as-of 1998-07-01 --set gateway.port=0",
        "churn serve --no-gateway",
    ),
    arguments=(
        argument(
            "--as-of",
            type=moment,
            metavar="DATE",
            help="the server's clock starts here instead of now: features of an old log are then not stale",
        ),
        argument(
            "--no-gateway",
            action="store_true",
            help="TorchServe alone, on loopback, with its own token: where there is no Envoy",
        ),
    ),
)
def serve(settings: Settings, arguments: Namespace) -> int:
    if arguments.no_gateway or not settings.gateway.enabled:
        return _serve_alone(settings, arguments)
    from pipelines.live import supervised
    from pipelines.rollout import controller_thread
    from pipelines.served import Served

    files, now = settings.files, datetime.now(UTC)
    clock = arguments.as_of or now
    served = Served(settings, who(), now)
    with (
        console.err.status("starting TorchServe and the gateway") as shown,
        supervised(
            settings, files, now, clock, served, controller_thread(settings, clock - now)
        ) as supervisor,
        _signals() as requests,
    ):
        shown.stop()
        _show_addresses(settings, supervisor)
        while not requests.stop:
            if requests.change:
                requests.change = False
                _change_version(supervisor, served)
            supervisor.tick(datetime.now(UTC))
            time.sleep(TICK_S)
        console.err.print("stopping after the open requests are answered; interrupt again to stop at once")
    return 0


@command(
    "reload",
    "have the running server take the archive that was packaged last; no request is cut",
    examples=("churn reload",),
)
def reload(settings: Settings, arguments: Namespace) -> int:
    from serving.client import running

    before = running(settings.files)
    if "gateway" not in before:
        raise ServingError("reload: the server runs without the gateway; stop it and start it again")
    with console.err.status("starting the new version beside the old one"):
        os.kill(int(before["pid"]), signal.SIGHUP)
        deadline = time.monotonic() + CHANGE_TIMEOUT_S
        while time.monotonic() < deadline:
            record = running(settings.files)
            if record["changes"] > before["changes"]:
                break
            time.sleep(TICK_S)
        else:
            raise ServingError(f"reload: no answer within {CHANGE_TIMEOUT_S:g} s; see `churn serve`")
    if record["change_refused"]:
        raise ServingError(f"reload: the old version continues to serve: {record['change_refused']}")
    console.out.print(f"Serving {record['archive']}", soft_wrap=True)
    return 0


def _show_addresses(settings: Settings, supervisor: Supervisor) -> None:
    gateway, model = supervisor.gateway, settings.serving.model_name
    addresses = {
        "native": f"{gateway.url}/predictions/{model}",
        "KServe v1": f"{gateway.url}/v1/models/{model}:predict",
        "Open Inference v2": f"{gateway.url}/v2/models/{model}/infer, gRPC on the same port",
        "API key": str(settings.files.api_key) if settings.gateway.keys else "not required",
    }
    if gateway.certificate is not None:
        addresses["certificate"] = str(gateway.certificate)
    addresses["gateway metrics"] = f"{gateway.metrics}/metrics"
    addresses["model metrics"] = f"{supervisor.model.metrics}/metrics"
    console.pairs("Serving until interrupted (Ctrl-C)", addresses)
    console.out.print("Next: [bold]churn predict USER_ID[/]; a new version: [bold]churn reload[/]")


def _change_version(supervisor: Supervisor, served: Served) -> None:
    try:
        supervisor.change()
        served.changed(supervisor.model.archive, who(), datetime.now(UTC))
    except ChurnError as error:
        console.err.print(f"the version is not changed: {error}", soft_wrap=True, markup=False)


def _serve_alone(settings: Settings, arguments: Namespace) -> int:
    from pipelines.live import server

    now = datetime.now(UTC)
    files, model = settings.files, settings.serving.model_name
    with (
        console.err.status("starting TorchServe") as shown,
        server(settings, files, now, arguments.as_of or now) as torchserve,
    ):
        shown.stop()
        console.pairs(
            "Serving without the gateway until interrupted (Ctrl-C)",
            {
                "native": f"{torchserve.inference}/predictions/{model}",
                "KServe v1": f"{torchserve.inference}/v1/models/{model}:predict",
                "Open Inference v2": f"{torchserve.inference}/v2/models/{model}/infer",
                "management": torchserve.management,
                "metrics": f"{torchserve.metrics}/metrics",
                "tokens": str(torchserve.record()["key_file"]),
            },
        )
        console.out.print("Next: [bold]churn predict USER_ID[/]")
        try:
            while torchserve.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"TorchServe ended unexpectedly; see {files.serving / 'logs'}")


@dataclass
class _Requests:
    """Signals that have arrived: INT or TERM to stop, HUP to change the version."""

    stop: bool = False
    change: bool = False


@contextmanager
def _signals() -> Iterator[_Requests]:
    """Record signals instead of interrupting a change that is in progress."""
    requests = _Requests()

    def stop(number: int, frame: FrameType | None) -> None:
        requests.stop = True

    def change(number: int, frame: FrameType | None) -> None:
        requests.change = True

    handlers: dict[signal.Signals, Any] = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: change}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
