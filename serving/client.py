"""A client of a running server."""

import json
import os
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from core.errors import ServingError
from core.workspace import Workspace
from serving.gateway.keys import own_key
from serving.record import record_file
from serving.torchserve.tokens import read_tokens


def predict(
    base_url: str,
    model: str,
    user_ids: Sequence[int | str],
    key: str | None = None,
    timeout: float = 30.0,
    verify: ssl.SSLContext | bool = True,
) -> list[dict[str, Any]]:
    """Request predictions; return the server's answer for each id, in the order of `user_ids`.

    The answer for an unknown customer has the key `error`. `key`: an API key of the gateway, or TorchServe's
    own inference token when there is no gateway. `timeout`: seconds. `verify`: how the server's certificate
    is verified (serving.gateway.tls.own_client).

    Raises ServingError when the server cannot be reached or refuses the request.
    """
    url = f"{base_url}/v1/models/{model}:predict"
    body = {"instances": [{"user_id": user_id} for user_id in user_ids]}
    try:
        # trust_env=False: a proxy of the environment must not get requests to this machine
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        answer = httpx.post(url, json=body, headers=headers, timeout=timeout, trust_env=False, verify=verify)
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


def key_for(server: Mapping[str, Any], files: Workspace) -> str | None:
    """The key or token of this workspace's own client for `server`, the result of `running`."""
    if "gateway" in server:
        return own_key(files.api_key)
    tokens = read_tokens(Path(server["key_file"]))
    return None if tokens is None else tokens.inference


def accepts(
    server: Mapping[str, Any], key: str, verify: ssl.SSLContext | bool = True, within_s: float = 10.0
) -> bool:
    """Whether the gateway of `server`, the result of `running`, accepts a key that was made just now.

    It reads the list of keys again within about a second. Until then it refuses the new key.
    """
    url, deadline = f"{server['gateway']}/v1/models/{server['model']}", time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(url, headers={"x-api-key": key}, timeout=5, trust_env=False, verify=verify)
        except httpx.HTTPError:
            return False
        if answer.status_code != 401:
            return True
        time.sleep(0.1)
    return False


def running(files: Workspace) -> dict[str, Any]:
    """The record of the running server: the URLs `inference`, `management`, `metrics`, and `pid`, `model`,
    `archive`; with the gateway also its addresses, `state` and `reason`.

    Raises ServingError when no server of this workspace runs.
    """
    file = record_file(files)
    nothing = ServingError(f"no server runs for {files.root}; start one with: churn serve")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        os.kill(int(record["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        raise nothing from None
    except (ValueError, KeyError, TypeError):
        raise ServingError(f"{file}: unreadable; remove it, start again") from None
    return dict(record)
