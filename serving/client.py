"""Asking a running server."""

import json
import os
from collections.abc import Sequence
from typing import Any

import httpx

from data.errors import ServingError
from data.workspace import Workspace


def predict(
    base_url: str, model: str, user_ids: Sequence[int | str], timeout: float = 30.0
) -> list[dict[str, Any]]:
    """The server's answer for each id, in the order asked; an unknown customer's has the key `error`.

    Raises ServingError when the server cannot be reached or refuses the request.
    """
    url = f"{base_url}/v1/models/{model}:predict"
    body = {"instances": [{"user_id": user_id} for user_id in user_ids]}
    try:
        # a proxy of the environment has no business between this machine and itself
        answer = httpx.post(url, json=body, timeout=timeout, trust_env=False)
    except httpx.TimeoutException:
        raise ServingError(f"{base_url}: no answer within {timeout:g} s") from None
    except httpx.HTTPError as error:
        raise ServingError(f"{base_url}: {error}; start a server with: churn serve") from None
    try:
        content = answer.json()
    except ValueError:
        raise ServingError(f"{base_url}: HTTP {answer.status_code} without JSON; not our server?") from None
    if answer.status_code != 200:
        reason = content.get("error") or content.get("message") if isinstance(content, dict) else content
        raise ServingError(f"{base_url}: HTTP {answer.status_code}: {reason}")
    return list(content["predictions"])


def running(files: Workspace) -> dict[str, Any]:
    """What `TorchServe` wrote of itself: the URLs `inference`, `management`, `metrics`, and `pid`, `model`,
    `archive`. Raises ServingError when no server of this workspace runs.
    """
    nothing = ServingError(f"no server runs for {files.root}; start one with: churn serve")
    try:
        record = json.loads((files.serving / "server.json").read_text(encoding="utf-8"))
        os.kill(int(record["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        raise nothing from None
    except (ValueError, KeyError, TypeError):
        raise ServingError(f"{files.serving / 'server.json'}: unreadable; remove it, start again") from None
    return dict(record)
