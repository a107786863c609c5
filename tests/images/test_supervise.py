"""Process 1 of the serving image reports why workers end, and gives up where none becomes ready."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

from support.image_scripts import image_script

MIB = 1 << 20

supervise = image_script("supervise")


def memory(killed: int = 0) -> object:
    return supervise.Memory(420 * MIB, 419 * MIB, killed)


def test_a_worker_that_the_kernel_killed_is_named_with_the_limit() -> None:
    workers = supervise.Workers()
    workers.look(frozenset({7}), False, memory())

    [sentence] = workers.look(frozenset(), False, memory(killed=1))

    assert sentence == (
        "worker 7 ended; the kernel ended it for memory (memory limit 420 MiB, most in use 419 MiB; 1 so far)"
    )
    assert "raise the container's memory limit" in workers.reason(memory(killed=1))


def test_a_refusal_of_the_handler_is_the_reason() -> None:
    workers = supervise.Workers()
    workers.said("2026-11-26 ERROR REFUSED feature store: its registry cannot be read: OperationalError")
    workers.said("Backend worker process died")
    workers.look(frozenset({7}), False, memory())
    workers.look(frozenset(), False, memory())

    assert workers.reason(memory()) == "feature store: its registry cannot be read: OperationalError"


def test_workers_that_end_between_ready_ones_are_not_counted_together() -> None:
    workers = supervise.Workers()
    for pid, ended in ((7, 0), (8, 1), (9, 1)):
        workers.look(frozenset({pid}), False, memory())
        assert workers.ended_in_row == ended
        workers.look(frozenset({pid}), True, memory())
        assert workers.ended_in_row == 0


@pytest.mark.parametrize("version", [1, 2])
def test_limit_and_count_come_from_either_version_of_control_groups(version: int, tmp_path: Path) -> None:
    files = {
        1: {
            "memory/memory.limit_in_bytes": "440401920\n",
            "memory/memory.max_usage_in_bytes": "440000000\n",
            "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        },
        2: {
            "memory.max": "440401920\n",
            "memory.peak": "440000000\n",
            "memory.events": "low 0\noom 4\noom_kill 3\n",
        },
    }[version]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert supervise.memory(tmp_path) == supervise.Memory(440401920, 440000000, 3)


def test_no_limit_is_none_and_files_that_are_absent_too(tmp_path: Path) -> None:
    assert supervise.memory(tmp_path) == supervise.Memory(None, None, 0)
    (tmp_path / "memory.max").write_text("max\n")
    assert supervise.memory(tmp_path).limit is None


SERVER = """
    import subprocess, sys, time
    print("Model server started.", flush=True)
    while True:
        print('{"level": "info", "message": "REFUSED feature store: away"}', flush=True)
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1.3)", "model_service_worker.py"])
"""


def test_a_server_whose_workers_do_not_stay_up_is_ended_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "termination-log"
    said.touch()
    monkeypatch.setattr(supervise, "TERMINATION", said)
    monkeypatch.setattr(supervise.signal, "signal", lambda *_: None)
    monkeypatch.setattr(supervise, "LOOK_EVERY_S", 0.2)

    code = supervise.supervise(
        [sys.executable, "-c", textwrap.dedent(SERVER)], {}, lambda: False, root=tmp_path
    )

    assert code == 1
    assert said.read_text() == "feature store: away"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["message"] == "Model server started."
    assert sum("ended; feature store: away" in line["message"] for line in lines) == supervise.TRIES
    assert lines[-1]["message"] == "given up after 3 workers: feature store: away"


def test_the_exit_code_is_the_servers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(5)"]
    handlers = {n: supervise.signal.getsignal(n) for n in (supervise.signal.SIGTERM, supervise.signal.SIGINT)}
    try:
        assert supervise.supervise(command, {}, lambda: True, root=tmp_path) == 5
    finally:
        for number, handler in handlers.items():
            supervise.signal.signal(number, handler)
