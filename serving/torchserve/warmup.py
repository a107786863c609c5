"""A fresh TorchServe is slow at first: its JVM compiles, its caches are empty. Not with customers."""

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

from handlers.identity import NOBODY
from serving.torchserve.server import TorchServe
from serving.torchserve.tokens import Tokens

REQUESTS, AT_ONCE, WITHIN_S = 600, 8, 10.0
"""After so many whole predictions, or so long, whichever comes first."""


def warm_up(
    server: TorchServe, requests: int = REQUESTS, at_once: int = AT_ONCE, within_s: float = WITHIN_S
) -> int:
    """Ask for predictions about nobody, which are not logged; how many were answered.

    Ends early, and raises nothing, where the server ends: whoever waits for it learns that anyway.
    """
    answered: list[int] = []
    deadline = time.monotonic() + within_s
    threads = [
        threading.Thread(target=lambda: answered.append(_ask(server, requests // at_once, deadline)))
        for _ in range(at_once)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(answered)


def _ask(server: TorchServe, requests: int, deadline: float) -> int:
    place = urlsplit(server.inference)
    body = json.dumps({"instances": [{"user_id": NOBODY}]})
    headers = {**Tokens.headers(server.tokens.inference), "content-type": "application/json"}
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)
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
