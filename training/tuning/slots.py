"""A study as a queue in its database: exactly the requested number of trials, with many workers and crashes.

Every trial that is still to run is a row in state WAITING (a slot). Workers claim slots and create none, so
the number of finished trials is the requested one even if workers die or are late. Optuna's loop creates a
trial whenever none waits, and with `MaxTrialsCallback` ends up to workers - 1 above the requested number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any
from warnings import catch_warnings, filterwarnings

import optuna
import sqlalchemy
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from core.addresses import failure
from core.errors import TrainingError
from training.config import TuningConfig
from training.quiet import quiet
from training.tuning.together import one_at_a_time

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
RETRIES = 3
"""Times that a trial is run again after its worker died, before another point replaces it."""

AHEAD = 64
"""Slots made in advance. Each is a write, so a study of thousands of trials could not start at once."""


def open_storage(tuning: TuningConfig) -> RDBStorage:
    """The study's database, with its tables created. In another database than PostgreSQL, call it first in
    a single process: if two processes create the tables at the same time, one of them fails.
    """
    # Optuna's default timeout of five seconds is short for several writers on SQLite. Other databases wait,
    # but may close a connection between two trials.
    local = tuning.storage.startswith("sqlite")
    engine = {"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True}
    with _without_experimental_warnings(), one_at_a_time(_engine(tuning.storage), "tables of studies"):
        return RDBStorage(
            tuning.storage,
            engine_kwargs=engine,
            heartbeat_interval=tuning.heartbeat_s,
            grace_period=tuning.grace_s,
            heartbeat_stale_trial_callback=_run_again,
        )


def _engine(storage: str) -> sqlalchemy.Engine:
    """For a lock before the tables exist; it retains no connection."""
    return sqlalchemy.create_engine(storage, poolclass=sqlalchemy.NullPool)


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Silences Optuna, and converts errors of its database into a one-line TrainingError, password masked."""
    try:
        with quiet():
            yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        raise TrainingError(failure("studies", storage, error)) from None


def finished(study: optuna.Study) -> int:
    """The number of finished trials, pruned ones included."""
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def refill_queue(study: optuna.Study, wanted: int) -> None:
    """Frees the slots of dead workers and adds the slots missing to `wanted`, at most AHEAD. One process at a
    time may call it.

    A trial whose heartbeat has stopped becomes FAIL, and its point is enqueued again.
    """
    with _without_experimental_warnings():
        optuna.storages.fail_stale_trials(study)
    taken = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING, TrialState.WAITING))
    waiting = sum(trial.state == TrialState.WAITING for trial in taken)
    for _ in range(min(wanted - len(taken), AHEAD - waiting)):
        study.enqueue_trial({})


def claim(study: optuna.Study, storage: RDBStorage, wanted: int) -> optuna.trial.FrozenTrial | None:
    """Claims the first free slot within the first `wanted`; None if there is none.

    Only one worker can claim a slot. Slots beyond `wanted` (of a study planned to be longer) stay waiting.
    """
    trials = study.get_trials(deepcopy=False)
    used = sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials)
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    for trial in waiting[: max(wanted - used, 0)]:
        if _claim_row(storage, trial._trial_id):
            return trial
    return None


def _claim_row(storage: RDBStorage, trial_id: int) -> bool:
    """Sets WAITING to RUNNING and writes the first heartbeat, in one transaction; whether it succeeded.

    It is one UPDATE, since Optuna reads and writes under FOR UPDATE, which SQLite lacks. The heartbeat is
    needed, since Optuna never treats a trial without one as stale.
    """
    from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel

    now = datetime.now(UTC).replace(tzinfo=None)  # the start time as Optuna stores it
    take = (
        sqlalchemy.update(TrialModel)
        .where(TrialModel.trial_id == trial_id, TrialModel.state == TrialState.WAITING)
        .values(state=TrialState.RUNNING, _datetime_start_utc=now)
    )
    with storage.engine.begin() as connection:
        if connection.execute(take).rowcount != 1:
            return False
        connection.execute(sqlalchemy.insert(TrialHeartbeatModel).values(trial_id=trial_id))
    return True


def run_trial(
    study: optuna.Study,
    storage: RDBStorage,
    slot: optuna.trial.FrozenTrial,
    objective: Callable[[optuna.Trial], float],
) -> optuna.trial.FrozenTrial:
    """Runs a claimed slot to COMPLETE or PRUNED while a thread records heartbeats.

    If it is interrupted, its point is enqueued again. If it fails, the error is raised and the slot is free.
    If another worker got the trial (heartbeats stop while a machine sleeps), its result is not changed.
    """
    with _heartbeats(storage, slot._trial_id):
        try:
            value = objective(optuna.Trial(study, slot._trial_id))
        except optuna.TrialPruned:
            return _finish(study, slot, TrialState.PRUNED, None)
        except optuna.exceptions.UpdateFinishedTrialError:
            return storage.get_trial(slot._trial_id)
        except Exception:
            _finish(study, slot, TrialState.FAIL, None)
            raise
        except BaseException:
            _run_again(study, _finish(study, slot, TrialState.FAIL, None))
            raise
        return _finish(study, slot, TrialState.COMPLETE, value)


def _finish(
    study: optuna.Study, slot: optuna.trial.FrozenTrial, state: TrialState, value: float | None
) -> optuna.trial.FrozenTrial:
    return study.tell(slot.number, value, state, skip_if_finished=True)


def _run_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    with _without_experimental_warnings():
        RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


@contextmanager
def _heartbeats(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    done = Event()

    def beat() -> None:
        while not done.wait(storage.get_heartbeat_interval()):
            storage.record_heartbeat(trial_id)

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _without_experimental_warnings() -> Iterator[Any]:
    """Silences the warning that heartbeats are experimental, as they have been since Optuna 2.6."""
    with catch_warnings():
        filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
