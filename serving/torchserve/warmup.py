"""Warms up a new TorchServe before customers use it: at first its JVM compiles and its caches are empty."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

from handlers.identity import PROBE_ID
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens

REQUESTS, AT_ONCE, WITHIN_S = 600, 8, 10.0
"""The warm-up ends after so many predictions or so many seconds, whichever is first."""


def warm_up(
    server: TorchServe, requests: int = REQUESTS, at_once: int = AT_ONCE, within_s: float = WITHIN_S
) -> int:
    """Request predictions for an identifier that no customer has (they are not logged); return how many were
    answered.

    Ends early, without an error, when the server ends: its caller finds that out by itself.
    """
    answered: list[int] = []
    deadline = time.monotonic() + within_s
    threads = [
        threading.Thread(target=lambda: answered.append(_send(server, requests // at_once, deadline)))
        for _ in range(at_once)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered)


def _send(server: TorchServe, requests: int, deadline: float) -> int:
    address = urlsplit(server.inference)
    body = json.dumps({"instances": [{"user_id": PROBE_ID}]})
    headers = {**Tokens.headers(server.tokens.inference), "content-type": "application/json"}
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=5)
    done = 0
    try:
        while done < requests and time.monotonic() < deadline and server.alive:
            connection.request("POST", f"/v1/models/{server.model_name}:predict", body, headers)
            connection.getresponse().read()
            done += 1
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    return done
