"""`churn keys ...`: the API keys of the gateway's clients."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from churn import console
from churn.argument_types import days, words
from churn.command import argument, command
from core.errors import ServingError

if TYPE_CHECKING:
    from churn.settings import Settings

NAME = argument("name", metavar="NAME", help="whose key it is")


@command(
    "keys add",
    "make an API key for a client of the gateway; it is shown once",
    examples=(
        "churn keys add call-centre",
        "churn keys add trial --expires 30 --scopes predict --requests-per-s 50",
    ),
    arguments=(
        NAME,
        argument("--expires", type=days, metavar="DAYS", help="after so many days; default: never"),
        argument(
            "--scopes",
            type=words,
            default=("predict", "explain"),
            metavar="SCOPES",
            help="of predict (scores), explain (reasons too), variant (who answers);"
            " default: predict,explain",
        ),
        argument(
            "--requests-per-s",
            type=float,
            metavar="N",
            help="its own quota; default: gateway.requests_per_s",
        ),
    ),
)
def add(settings: Settings, arguments: Namespace) -> int:
    from serving.gateway.keys import Keys

    now, quota, gateway = datetime.now(UTC), arguments.requests_per_s, settings.gateway
    least = gateway.requests_per_s / gateway.burst
    if quota is not None and quota < least:
        raise ServingError(
            f"--requests-per-s {quota:g}: at least {least:g}, which is gateway.requests_per_s / gateway.burst"
        )
    expires = None if arguments.expires is None else now + timedelta(days=arguments.expires)
    key = Keys(settings.files.api_keys).add(arguments.name, now, expires, arguments.scopes, quota)
    _until_accepted(settings, key)
    _show_once(key)
    return 0


@command(
    "keys rotate",
    "make another key for a client that has one; both are good for a while, so that no request is cut",
    examples=("churn keys rotate call-centre --overlap 7",),
    arguments=(
        NAME,
        argument(
            "--overlap",
            type=days,
            default=1.0,
            metavar="DAYS",
            help="how long the present key is good beside the new one (default: 1)",
        ),
    ),
)
def rotate(settings: Settings, arguments: Namespace) -> int:
    from serving.gateway.keys import OWN, Keys, replace_privately

    overlap = timedelta(days=arguments.overlap)
    key = Keys(settings.files.api_keys).rotate(arguments.name, datetime.now(UTC), overlap)
    _until_accepted(settings, key)
    if arguments.name == OWN:  # only now, since programs that read this file use the key at once
        replace_privately(settings.files.api_key, key + "\n")
    _show_once(key)
    console.err.print(f"The previous key is valid for {arguments.overlap:g} more days.")
    return 0


@command(
    "keys list",
    "the clients that have a key: until when, for what, and when it was used last",
    examples=("churn keys list",),
)
def list_all(settings: Settings, arguments: Namespace) -> int:
    """The time of the last use is accurate to five minutes."""
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


@command(
    "keys revoke",
    "take a client's key back, also from a running gateway",
    examples=("churn keys revoke call-centre",),
    arguments=(NAME,),
)
def revoke(settings: Settings, arguments: Namespace) -> int:
    from serving.gateway.keys import Keys

    Keys(settings.files.api_keys).revoke(arguments.name)
    console.out.print(f"{arguments.name} is revoked; a running gateway refuses it within a second.")
    return 0


def _until_accepted(settings: Settings, key: str) -> None:
    """Return when a running gateway accepts the key, so that whoever sees it can use it."""
    from serving.client import accepts, running
    from serving.gateway.tls import own_client

    try:
        server = running(settings.files)
        if "gateway" not in server or accepts(server, key, own_client(server)):
            return
    except ServingError:
        return  # no server runs, and the next one reads the list at its start
    console.err.print("The running gateway does not accept the key yet; see serving/logs/envoy.log.")


def _show_once(key: str) -> None:
    console.out.print(key, soft_wrap=True, markup=False)
    console.err.print("The key is not shown again. Send it as x-api-key or Authorization: Bearer.")
