"""One tuning worker: `python -m training.tuning.worker`, started only by training/tuning/workers.py.

It reads its job as one JSON line from standard input and writes its reports as JSON lines to standard output.
When the input closes (the parent has stopped or was killed), the worker returns its trial and ends.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

LATEST_END_S = 20.0


def main() -> int:
    """Works on the job until the study is finished; returns the exit code."""
    # standard output is redirected, so that no library can print between the reports
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    line = sys.stdin.readline()
    if not line:  # the parent ended before it sent a job
        return 0
    stopping = threading.Event()
    threading.Thread(target=_until_parent_ends, args=(stopping,), daemon=True).start()
    from core.errors import ChurnError

    try:
        _run(json.loads(line), stopping, reports)
    except ChurnError as error:
        _report(reports, error=str(error))
        return error.exit_code
    return 0


def _run(job: dict[str, Any], stopping: threading.Event, reports: IO[str]) -> None:
    import pandas as pd
    import torch
    from optuna.trial import FrozenTrial

    from features.spec import FeaturesConfig
    from model.config import ModelConfig
    from training.config import TrainingConfig, TuningConfig
    from training.learn.resolved import FitSettings
    from training.quiet import quiet
    from training.train import prepare
    from training.tuning.slots import open_storage
    from training.tuning.study import StudyQueue, outcome, run_slots
    from training.tuning.trial import Objective, Stopped, judged_rows

    torch.set_num_threads(1)
    settings = FitSettings(
        job["shape"],
        FeaturesConfig.model_validate(job["spec"]),
        ModelConfig.model_validate(job["model"]),
        TrainingConfig.model_validate(job["training"]),
    )
    tuning = TuningConfig.model_validate(job["tuning"])
    rows, split = prepare(pd.read_parquet(job["rows"]), settings)
    judged = judged_rows(rows, split, settings.shape)
    del rows

    def report_trial(trial: FrozenTrial) -> None:
        _report(reports, trial=trial.number, outcome=outcome(trial))
        if stopping.is_set():
            raise Stopped

    def raise_if_stopping() -> None:
        if stopping.is_set():
            raise Stopped

    with quiet():
        queue = StudyQueue.open(open_storage(tuning), job["study"], tuning, settings.training.seed)
        artifacts = Path(job["artifacts"])
        objective = Objective(*judged, settings, tuning.space, artifacts, stopping.is_set)
        try:
            run_slots(queue, objective, job["timeout_s"], report_trial, raise_if_stopping)
        except Stopped:
            return


def _report(reports: IO[str], **content: Any) -> None:
    reports.write(json.dumps(content) + "\n")
    reports.flush()


def _until_parent_ends(stopping: threading.Event) -> None:
    while sys.stdin.readline():
        pass
    stopping.set()
    time.sleep(LATEST_END_S)
    os._exit(1)  # the trial could not be returned; its heartbeats stop, and it runs again


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # without clean-up, which takes seconds for torch and is not needed
