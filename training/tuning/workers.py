"""Starts the tuning workers as processes, reads their reports, replaces dead ones, and ends them."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from core.addresses import masked
from core.errors import TrainingError
from core.workspace import Workspace
from training.learn.resolved import FitSettings
from training.tuning.study import StudyQueue

POLL_S = 0.5
END_S = 25.0
DEATHS_IN_A_ROW = 4
ROOT = Path(__file__).resolve().parents[2]


def job_of(queue: StudyQueue, settings: FitSettings, files: Workspace) -> dict[str, Any]:
    """What a worker reads from standard input, as JSON."""
    configs = {
        "spec": settings.spec,
        "model": settings.model,
        "training": settings.training,
        "tuning": queue.tuning,
    }
    return {
        **{name: config.model_dump(mode="json") for name, config in configs.items()},
        "rows": str(files.training_set.absolute()),
        "shape": settings.shape,
        "study": queue.study.study_name,
        "artifacts": str(files.trial_artifacts.absolute()),
    }


class Workers:
    """`number` processes that work on one study; inside the `with` block, `wait` replaces those that die.

    They end with the block; each returns its trial first, so the study loses nothing. If the parent is
    killed, their standard input closes, which has the same effect.
    """

    def __init__(self, number: int, job: Mapping[str, Any], timeout_s: float | None) -> None:
        self._number, self._job = number, dict(job)
        self._deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self._running: list[subprocess.Popen[bytes]] = []
        self._deaths = 0

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._running:
            _pipe(worker.stdin).close()
        end = time.monotonic() + END_S
        for worker in self._running:
            try:
                worker.wait(max(end - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._stderr.close()

    def wait(
        self,
        finished: Callable[[], int],
        wanted: int,
        maintain: Callable[[], None],
        progress: Callable[[str], None],
    ) -> None:
        """Returns when `wanted` trials are finished, or the time is over and the last worker has ended.

        `maintain` is called about twice a second and frees the slots of dead workers. `progress` is called
        with the outcome of each trial. Raises TrainingError with the error of a worker, or when several
        workers in a row die.
        """
        while finished() < wanted:
            maintain()
            self._replace_dead()
            if not self._running and time.monotonic() >= self._deadline:
                break
            self._handle_report(progress)
        while not self._reports.empty():
            self._handle_report(progress)

    def _handle_report(self, progress: Callable[[str], None]) -> None:
        try:
            report = self._reports.get(timeout=POLL_S)
        except queue.Empty:
            return
        if "error" in report:
            raise TrainingError(report["error"])
        self._deaths = 0
        progress(report["outcome"])

    def _replace_dead(self) -> None:
        for worker in [worker for worker in self._running if worker.poll() is not None]:
            self._running.remove(worker)
            _pipe(worker.stdin).close()
            if worker.returncode:
                self._deaths += 1
                self._raise_after_repeated_deaths(worker.returncode)
        while len(self._running) < self._number and (left := self._deadline - time.monotonic()) > 0:
            self._running.append(self._start(None if left == float("inf") else left))

    def _raise_after_repeated_deaths(self, code: int) -> None:
        while not self._reports.empty():
            self._handle_report(lambda outcome: None)  # the error of the worker is raised if there is one
        if self._deaths < DEATHS_IN_A_ROW:
            return
        self._stderr.seek(0)
        output = masked(self._stderr.read().decode(errors="replace"))
        lines = output.strip().splitlines() or ["no output"]
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise TrainingError(
            f"{self._deaths} tuning workers in a row ended {how} before a trial was finished ({lines[-1]}); "
            "lower tuning.workers or give them more memory"
        )

    def _start(self, timeout_s: float | None) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "training.tuning.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C goes to the parent only, which stops the workers
        )
        threading.Thread(target=self._read_reports, args=(_pipe(worker.stdout),), daemon=True).start()
        job = json.dumps({**self._job, "timeout_s": timeout_s}) + "\n"
        try:
            _pipe(worker.stdin).write(job.encode())
            _pipe(worker.stdin).flush()
        except BrokenPipeError:
            pass  # it died at once; `_replace_dead` starts another
        return worker

    def _read_reports(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._reports.put(json.loads(line))


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
