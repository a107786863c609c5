"""Exit code 0 when every model has a ready worker, and one has answered a prediction.

TorchServe's /ping reports "Healthy" long before that, and its management API calls a worker ready that hangs.
"""

import json
import os
import sys
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

LISTEN = os.environ.get("CHURN_LISTEN") or "0.0.0.0:8080"
"""As in start_serve.py: what clients reach, so that the probe covers Envoy too."""
INFERENCE = f"http://127.0.0.1:{LISTEN.rpartition(':')[2]}"
MANAGEMENT = "http://127.0.0.1:8081/models"
PROBE = b'{"user_id": "u_00000000000000000000000000000000"}'
"""handlers/identity.py: a customer whom no shop has; such requests are not counted."""
ANSWER_WITHIN_S = 3.0


def ready_workers(model: str) -> int:
    with urlopen(f"{MANAGEMENT}/{model}", timeout=2) as answer:  # noqa: S310  loopback
        versions = json.load(answer)
    return sum(worker["status"] == "READY" for version in versions for worker in version["workers"])


def models() -> list[str]:
    with urlopen(MANAGEMENT, timeout=2) as answer:
        return [model["modelName"] for model in json.load(answer)["models"]]


def has_ready_worker() -> bool:
    """Whether each model has one, by the management API."""
    return bool(_ready_models())


def _ready_models() -> list[str]:
    """All models; none where one of them has no ready worker."""
    try:
        names = models()
        return names if all(ready_workers(name) for name in names) else []
    except (OSError, HTTPException, ValueError, KeyError):
        return []


def answers(model: str) -> bool:
    """Whether a prediction is answered in time. A refusal is an answer: a full queue, or a store that is
    away, is no reason to take the pod away."""
    request = Request(  # noqa: S310  loopback
        f"{INFERENCE}/predictions/{model}", PROBE, {"Content-Type": "application/json"}
    )
    try:
        with urlopen(request, timeout=ANSWER_WITHIN_S):  # noqa: S310
            return True
    except HTTPError:
        return True
    except (OSError, HTTPException):
        return False


def passes() -> bool:
    """Whether each model has a ready worker, and one has answered."""
    names = _ready_models()
    return bool(names) and all(answers(name) for name in names)


if __name__ == "__main__":
    sys.exit(0 if passes() else 1)
