"""What the commands of serving do: run the server, ask it, change its version, keep its keys."""

import json
import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from churn import console
from churn.commands.shown import show_answers
from churn.commands.step import identifiers, who
from churn.settings import Settings
from core.errors import ChurnError, ServingError

TICK_S = 0.2
CHANGE_TIMEOUT_S = 300.0


class _Asked:
    """What signals asked for since the last look: Ctrl-C or TERM to stop, HUP to change the version."""

    stop = False
    change = False


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
        supervised(settings, files, now, clock, served, controller_thread(settings, clock - now)) as ours,
        _signals() as asked,
    ):
        shown.stop()
        url, model = ours.gateway.url, settings.serving.model_name
        key = {"API key": str(files.api_key)} if settings.gateway.keys else {"API key": "none asked for"}
        console.pairs(
            "Serving until interrupted (Ctrl-C)",
            {
                "native": f"{url}/predictions/{model}",
                "KServe v1": f"{url}/v1/models/{model}:predict",
                "Open Inference v2": f"{url}/v2/models/{model}/infer, gRPC on the same port",
                **key,
                **(
                    {} if ours.gateway.certificate is None else {"certificate": str(ours.gateway.certificate)}
                ),
                "gateway metrics": f"{ours.gateway.metrics}/metrics",
                "model metrics": f"{ours.model.metrics}/metrics",
            },
        )
        console.out.print("Next: [bold]churn predict USER_ID[/]; a new version: [bold]churn reload[/]")
        while not asked.stop:
            if asked.change:
                asked.change = False
                try:
                    ours.change()
                    served.changed(ours.model.archive, who(), datetime.now(UTC))
                except ChurnError as error:
                    console.err.print(f"not changed: {error}", soft_wrap=True, markup=False)
            ours.tick(datetime.now(UTC))
            time.sleep(TICK_S)
        console.err.print("answering what is on its way, then stopping; again to stop at once")
    return 0


def _serve_alone(settings: Settings, arguments: Namespace) -> int:
    from pipelines.live import server

    now = datetime.now(UTC)
    files, model = settings.files, settings.serving.model_name
    with (
        console.err.status("starting TorchServe") as shown,
        server(settings, files, now, arguments.as_of or now) as ours,
    ):
        shown.stop()
        console.pairs(
            "Serving without the gateway until interrupted (Ctrl-C)",
            {
                "native": f"{ours.inference}/predictions/{model}",
                "KServe v1": f"{ours.inference}/v1/models/{model}:predict",
                "Open Inference v2": f"{ours.inference}/v2/models/{model}/infer",
                "management": ours.management,
                "metrics": f"{ours.metrics}/metrics",
                "tokens": str(ours.record()["key_file"]),
            },
        )
        console.out.print("Next: [bold]churn predict USER_ID[/]")
        try:
            while ours.alive:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    raise ServingError(f"TorchServe ended by itself; see {files.serving / 'logs'}")


def reload(settings: Settings, arguments: Namespace) -> int:
    """Have the running server take the archive that was packaged last."""
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
        raise ServingError(f"reload: the old version goes on: {record['change_refused']}")
    console.out.print(f"Serving {record['archive']}", soft_wrap=True)
    return 0


def predict(settings: Settings, arguments: Namespace) -> int:
    from serving.client import key_for, running
    from serving.client import predict as ask
    from serving.gateway.tls import own_client

    server = running(settings.files)
    ids = identifiers(settings, arguments.user_id)
    answers = ask(
        server["inference"],
        server["model"],
        ids,
        key_for(server, settings.files),
        verify=own_client(server),
    )
    if arguments.json:
        console.out.print_json(json.dumps(answers))
    else:
        show_answers(answers)
    return 1 if any("error" in answer for answer in answers) else 0


def keys_add(settings: Settings, arguments: Namespace) -> int:
    from serving.gateway.keys import Keys

    now, quota, gateway = datetime.now(UTC), arguments.requests_per_s, settings.gateway
    least = gateway.requests_per_s / gateway.burst
    if quota is not None and quota < least:
        raise ServingError(
            f"--requests-per-s {quota:g}: at least {least:g}, gateway.requests_per_s over gateway.burst"
        )
    expires = None if arguments.expires is None else now + timedelta(days=arguments.expires)
    key = Keys(settings.files.api_keys).add(arguments.name, now, expires, arguments.scopes, quota)
    _show_once(key)
    return 0


def keys_rotate(settings: Settings, arguments: Namespace) -> int:
    """Another key of the same name; the present one is good for a while more."""
    from serving.gateway.keys import OWN, Keys, replace_privately

    overlap = timedelta(days=arguments.overlap)
    key = Keys(settings.files.api_keys).rotate(arguments.name, datetime.now(UTC), overlap)
    if arguments.name == OWN:
        replace_privately(settings.files.api_key, key + "\n")
    _show_once(key)
    console.err.print(f"The one before it is good for {arguments.overlap:g} days more.")
    return 0


def _show_once(key: str) -> None:
    console.out.print(key, soft_wrap=True, markup=False)
    console.err.print(
        "This is the only time that it is shown. Send it as x-api-key or Authorization: Bearer."
    )


def keys_list(settings: Settings, arguments: Namespace) -> int:
    """Names of clients, and what their keys are good for; last use to within five minutes."""
    from serving.gateway.key_use import KeyUse
    from serving.gateway.keys import Keys

    used = KeyUse(settings.files).last()
    rows = [
        (
            *(key.name, key.created[:19], "-" if key.expires is None else key.expires[:19]),
            *(", ".join(key.scopes), "-" if key.requests_per_s is None else f"{key.requests_per_s:g}"),
            *(used.get(key.name, "never")[:19], key.sha256[:12]),
        )
        for key in Keys(settings.files.api_keys).all()
    ]
    columns = ("name", "made", "expires", "scopes", "requests/s", "last used", "SHA-256")
    console.table("API keys", columns, rows)
    return 0


def keys_revoke(settings: Settings, arguments: Namespace) -> int:
    from serving.gateway.keys import Keys

    Keys(settings.files.api_keys).revoke(arguments.name)
    console.out.print(f"{arguments.name} is revoked; a running gateway refuses it within a second.")
    return 0


@contextmanager
def _signals() -> Iterator[_Asked]:
    """Signals set a mark instead of breaking into a change that is under way."""
    asked = _Asked()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.stop = True

    def change(number: int, frame: FrameType | None) -> None:
        asked.change = True

    wanted: dict[signal.Signals, Any] = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: change}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
