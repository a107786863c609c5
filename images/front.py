"""Writes the configuration of the container's Envoy, with the gateway's modules, and prints its file name.

A process of its own, so that process 1 does not hold the memory of these modules. Arguments: the folder in
which they are, the folder for the files, and the values of serving.gateway.in_pod.Front as a JSON object.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    modules, folder, values = sys.argv[1:]
    sys.path.insert(0, modules)
    from core.errors import ServingError
    from serving.gateway.in_pod import Front, write_front

    given = json.loads(values)
    given["archive"] = Path(given["archive"])
    try:
        print(write_front(Front(**given), Path(folder)))  # noqa: T201
    except ServingError as error:
        sys.exit(str(error))
