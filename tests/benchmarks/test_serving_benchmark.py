"""The benchmark of serving times only servers whose answers are equal, and compares within rounds."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.servers import paired, report
from benchmarks.servers.contestants import GATEWAY, MEASURE, OURS, SESSIONS
from benchmarks.servers.ground import Ground, check, score_in
from benchmarks.servers.load import Target
from benchmarks.servers.process import NotStarted
from benchmarks.servers.rivals import READS


@contextmanager
def server(score_of: dict[int, float], status: int = 200) -> Iterator[Target]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            user_id = json.loads(body)["user_id"]
            content = json.dumps({"churn_probability": score_of[user_id]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 64  # all connections come at once

    with Server(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield Target(f"http://127.0.0.1:{made.server_port}/", '{"user_id": %s}')
        finally:
            made.shutdown()
            thread.join()


GROUND = Ground(cast(Any, None), Path("none"), Path("none"), tuple(range(40)))
SCORES = {user: (user + 1) / 50 for user in GROUND.ids if isinstance(user, int)}


def test_a_contestant_with_the_reference_scores_takes_part() -> None:
    with server(SCORES) as target:
        check(GROUND, target, list(SCORES.values()))


@pytest.mark.parametrize(
    ("wrong", "status", "says"),
    [({7: 0.9}, 200, "differ from the reference by up to 0.74"), ({}, 503, r"the statuses \[503\]")],
)
def test_another_score_or_a_refusal_is_not_timed(wrong: dict[int, float], status: int, says: str) -> None:
    with server(SCORES | wrong, status) as target, pytest.raises(NotStarted, match=says):
        check(GROUND, target, list(SCORES.values()))


def test_a_score_is_found_wherever_a_server_puts_it() -> None:
    one = {"churn_probability": 0.25}
    assert {score_in(answer) for answer in (one, [one], {"predictions": [one]})} == {0.25}


def test_each_rival_is_there_with_both_reads_beside_ours() -> None:
    for name, servers in SESSIONS.items():
        if name != "ours":
            rivals = set(servers) - set(MEASURE)
            assert set(servers) > set(MEASURE)
            for label in READS:
                assert len([rival for rival in rivals if rival.endswith(label)]) * 2 == len(rivals)


def cell(server: str, number: int, per_s: float) -> dict[str, Any]:
    return {
        **{"store": "sqlite", "session": "fastapi", "server": server, "concurrency": 64, "round": number},
        **{"per_s": per_s, "p50_ms": 1.0, "p99_ms": 2.0, "requests": 10, "refused": 0, "broken": 0},
        **{"timeouts": 0, "statuses": {}},
    }


def test_ratios_are_of_one_round_and_show_their_spread() -> None:
    rival = "FastAPI on uvicorn, our reader"
    cells = [
        cell(name, number, per_s)
        for number, (ours, gateway, other) in enumerate([(100, 50, 10), (300, 90, 20), (400, 80, 20)])
        for name, per_s in ((OURS, ours), (GATEWAY, gateway), (rival, other))
    ]
    assert report.ratios(cells, OURS, rival, "per_s") == [10, 15, 20]
    [(title, lines)] = report.tables(cells).items()
    assert title == "Rivals with our reader; features in sqlite"
    line = dict(zip(*lines, strict=True))
    assert line[report.DIRECT_TITLE] == "15.00 (10.00 to 20.00)"
    assert line[report.GATEWAY_TITLE] == "4.50 (4.00 to 5.00)"


def test_a_paired_run_reports_the_median_of_ratios_within_rounds() -> None:
    rounds = [{"now": 90.0, "then": 100.0}, {"now": 160.0, "then": 200.0}, {"now": 50.0, "then": 50.0}]
    assert paired.ratio(rounds, "now", "then") == {"median": 0.9, "lowest": 0.8, "highest": 1.0}


def test_the_batcher_sends_what_came_together_as_one_batch_and_fails_all_of_it() -> None:
    kserve_sdk = pytest.importorskip("benchmarks.servers.kserve_sdk")
    batches: list[list[int]] = []

    def answer(user_ids: list[int]) -> list[int]:
        batches.append(user_ids)
        if 13 in user_ids:
            raise ValueError("unlucky")
        return [10 * user_id for user_id in user_ids]

    async def together(*lists: list[int]) -> list[Any]:
        batcher = kserve_sdk.Batcher(answer)
        return await asyncio.gather(*(batcher.answer(ids) for ids in lists), return_exceptions=True)

    assert asyncio.run(together([1], [2, 3], [4])) == [[10], [20, 30], [40]]
    assert batches == [[1, 2, 3, 4]]
    failed = asyncio.run(together([12], [13]))
    assert [type(one) for one in failed] == [ValueError, ValueError]
    many = asyncio.run(together(*([number] for number in range(20, 60))))
    assert many == [[10 * number] for number in range(20, 60)]
    assert [len(batch) for batch in batches[2:]] == [32, 8]
