"""What tracing adds to a served request: microseconds of CPU time in the worker, its sending thread included.

    python -m benchmarks.tracing [--batches 2000] [--batch-size 32]

Batches go through `handlers.tracing` as `handlers.predictor` calls it, with nothing between the stages, and
the spans to a receiver in a separate process. CPU time is measured, on which other work has little effect.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from handlers import tracing
from handlers.protocol.messages import Answer, Call

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
CASES = {
    "off": None,
    "sample_ratio 0": ("", 0.0),
    "traceparent, not sampled": (TRACEPARENT + "00", 1.0),
    "sample_ratio .01": ("", 0.01),
    "every request": (TRACEPARENT + "01", 1.0),
}


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _receive(port: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    port.put(server.server_port)
    server.serve_forever()


@contextmanager
def receiver() -> Iterator[str]:
    """Its address."""
    spawn = multiprocessing.get_context("spawn")
    port = spawn.Queue()
    process = spawn.Process(target=_receive, args=(port,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}"
    finally:
        process.terminate()
        process.join()


def cpu_seconds(traced: tracing.Tracing | None, calls: Sequence[Call], batches: int) -> float:
    """Of so many batches, until all their spans are sent."""
    answers = [Answer(200, b"{}") for _ in calls]
    began = time.process_time()
    for _ in range(batches):
        if traced is not None:
            traced.begin()
        for stage in (tracing.READ, tracing.SCORE, tracing.WRITE):
            if traced is not None:
                traced.stage(stage)
        if traced is not None:
            traced.record(calls, answers)
    if traced is not None:
        traced.close()
    return time.process_time() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--batches", type=int, default=2000)
    arguments.add_argument("--batch-size", type=int, default=32)
    given = arguments.parse_args()
    requests = given.batches * given.batch_size
    with receiver() as endpoint:
        for name, case in CASES.items():
            traceparent, ratio = case or ("", 0.0)
            environment = {"CHURN_OTEL_ENDPOINT": endpoint, "CHURN_OTEL_RATIO": str(ratio)} if case else {}
            traced = tracing.open_tracing(environment, "churn", "benchmark", "stable")
            calls = [Call(f"request-{n}", traceparent=traceparent) for n in range(given.batch_size)]
            spent = cpu_seconds(traced, calls, given.batches)
            print(f"{name:28} {1e6 * spent / requests:8.2f} us of CPU a request")


if __name__ == "__main__":
    main()
