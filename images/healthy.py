"""Exit code 0 when every model has a ready worker. TorchServe's /ping reports "Healthy" long before that."""

import json
import sys
from urllib.error import URLError
from urllib.request import urlopen

MANAGEMENT = "http://127.0.0.1:8081/models"


def ready_workers(model: str) -> int:
    with urlopen(f"{MANAGEMENT}/{model}", timeout=2) as answer:  # noqa: S310  loopback
        versions = json.load(answer)
    return sum(worker["status"] == "READY" for version in versions for worker in version["workers"])


def main() -> int:
    try:
        with urlopen(MANAGEMENT, timeout=2) as answer:
            names = [model["modelName"] for model in json.load(answer)["models"]]
        return 0 if names and all(ready_workers(name) for name in names) else 1
    except (URLError, OSError, ValueError):
        return 1


sys.exit(main())
