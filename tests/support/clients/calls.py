"""What the scripts beside this have in common: each makes every call of one client, as its users write it,
and prints call -> what came of it as JSON.

Each is a process of its own, since tritonclient and the KServe SDK define the same protobuf names. Arguments:
address (host:port), headers as JSON, address of gRPC.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

IDS = list(range(1, 41))
MODEL, VERSION = "churn", os.environ.get("MODEL_VERSION", "0123456789ab")
MASKED = json.loads(sys.argv[4]) if len(sys.argv) > 4 else []
"""The same customers by their masked names."""
ADDRESS, HEADERS, GRPC = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]


def outcomes(calls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """What each call returned; `error: ...` where it raised."""
    found = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except Exception as error:  # whatever a client raises is what became of the call
            found[name] = f"error: {type(error).__name__}: {str(error)[:300]}"
    return found


def report(found: dict[str, Any]) -> None:
    print("OUTCOMES " + json.dumps(found))
