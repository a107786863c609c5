"""curl, as people type it."""

import gzip
import json
import subprocess
import tempfile
from pathlib import Path

from calls import ADDRESS, HEADERS, IDS, MODEL, VERSION, outcomes, report

URL = f"http://{ADDRESS}"
KEY = [part for name, value in HEADERS.items() for part in ("-H", f"{name}: {value}")]
FOLDER = Path(tempfile.mkdtemp())
INSTANCES = [{"user_id": i} for i in IDS]
V2 = {"inputs": [{"name": "user_id", "shape": [len(IDS)], "datatype": "INT64", "data": IDS}]}


def curl(path, *arguments, body=None):
    if body is not None:
        (FOLDER / "body").write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    command = ["curl", "-sS", "--fail-with-body", *KEY, URL + path, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace"))
    return json.loads(done.stdout)


def scores(answer):
    match answer:
        case {"predictions": list(found)} | list(found):
            return [one["churn_probability"] for one in found]
        case {"outputs": outputs}:
            return next(o for o in outputs if o["name"] == "churn_probability")["data"]
        case _:
            return [answer["churn_probability"]]


FILE = ("-d", f"@{FOLDER / 'body'}")
BYTES = ("--data-binary", f"@{FOLDER / 'body'}")
JSON = ("-H", "Content-Type: application/json")
calls = {
    "-d, native": lambda: scores(curl(f"/predictions/{MODEL}", "-d", '{"user_id": 1}')),
    "-d @file, native list": lambda: scores(curl(f"/predictions/{MODEL}", *FILE, body=INSTANCES)),
    "-d @file, v1": lambda: scores(curl(f"/v1/models/{MODEL}:predict", *FILE, body={"instances": INSTANCES})),
    "-d, v1, a lone object": lambda: scores(
        curl(f"/v1/models/{MODEL}:predict", "-d", '{"instances": {"user_id": 1}}')
    ),
    "-d @file, v2": lambda: scores(curl(f"/v2/models/{MODEL}/infer", *FILE, body=V2)),
    "-d @file with Content-Type, v2": lambda: scores(
        curl(f"/v2/models/{MODEL}/infer", *JSON, *FILE, body=V2)
    ),
    "-d @file, v2, a version": lambda: scores(
        curl(f"/v2/models/{MODEL}/versions/{VERSION}/infer", *JSON, *FILE, body=V2)
    ),
    "--data-binary, gzip": lambda: scores(
        curl(
            f"/v1/models/{MODEL}:predict",
            *(*JSON, "-H", "Content-Encoding: gzip", *BYTES),
            body=gzip.compress(json.dumps({"instances": INSTANCES}).encode()),
        )
    ),
    "--compressed, v1": lambda: scores(
        curl(f"/v1/models/{MODEL}:predict", *JSON, "--compressed", *FILE, body={"instances": INSTANCES})
    ),
    "a byte order mark": lambda: scores(
        curl(f"/predictions/{MODEL}", *JSON, *BYTES, body=b'\xef\xbb\xbf{"user_id": 1}')
    ),
    "a header with an underscore": lambda: scores(
        curl(f"/predictions/{MODEL}", *JSON, "-H", "SFDC_STACK_DEPTH: 1", "-d", '{"user_id": 1}')
    ),
    "GET server metadata": lambda: bool(curl("/v2")),
    "GET model metadata": lambda: bool(curl(f"/v2/models/{MODEL}")),
    "GET model metadata, a version": lambda: bool(curl(f"/v2/models/{MODEL}/versions/{VERSION}")),
    "GET ready": lambda: bool(curl("/v2/health/ready")),
}
report(outcomes(calls))
