"""A study as a queue in its database: what makes many workers, crashes and a fixed number of trials agree.

Every trial that is still to run is a row in state WAITING (a slot). Workers take slots and create none, so
that the number of finished trials is the asked one whoever dies or is late. Optuna's own loop creates a
trial whenever none waits: `MaxTrialsCallback` then ends up to workers - 1 above the asked number.
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

from data.errors import TrainingError
from training.addresses import failure
from training.config import TuningConfig
from training.quiet import quiet

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
RETRIES = 3
"""How often a trial whose worker died is run again before another point is tried in its place."""

AHEAD = 64
"""Slots made in advance: each is a write, and a study of thousands should start at once."""


def open_storage(tuning: TuningConfig) -> RDBStorage:
    """The study's database, its tables made. Call it first in one process alone: two that make the tables
    together let one of them fail.
    """
    # Optuna's default of five seconds is short for several writers on SQLite; other databases wait anyway,
    # and their connections may have been closed between two trials
    local = tuning.storage.startswith("sqlite")
    engine = {"connect_args": {"timeout": 60}} if local else {"pool_pre_ping": True}
    with _stable():
        return RDBStorage(
            tuning.storage,
            engine_kwargs=engine,
            heartbeat_interval=tuning.heartbeat_s,
            grace_period=tuning.grace_s,
            heartbeat_stale_trial_callback=_run_again,
        )


@contextmanager
def reaching_studies(storage: str) -> Iterator[None]:
    """Silences Optuna, and turns what its database says into a TrainingError of one line, password masked."""
    try:
        with quiet():
            yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        raise TrainingError(failure("studies", storage, error)) from None


def finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=FINISHED))


def keep_filled(study: optuna.Study, wanted: int) -> None:
    """Give the slots of dead workers back and add what lacks to `wanted`, AHEAD at most. For one process at a
    time.

    A trial whose heartbeat has stopped becomes FAIL, and its point waits to be run again.
    """
    with _stable():
        optuna.storages.fail_stale_trials(study)
    taken = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.RUNNING, TrialState.WAITING))
    waiting = sum(trial.state == TrialState.WAITING for trial in taken)
    for _ in range(min(wanted - len(taken), AHEAD - waiting)):
        study.enqueue_trial({})


def claim(study: optuna.Study, storage: RDBStorage, wanted: int) -> optuna.trial.FrozenTrial | None:
    """Take the first slot within the first `wanted`; None when there is none to take.

    A slot goes to one worker only. Slots beyond `wanted` (of a study that was to be longer) are left.
    """
    trials = study.get_trials(deepcopy=False)
    used = sum(trial.state in (*FINISHED, TrialState.RUNNING) for trial in trials)
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    for trial in waiting[: max(wanted - used, 0)]:
        if _take(storage, trial._trial_id):
            return trial
    return None


def _take(storage: RDBStorage, trial_id: int) -> bool:
    """WAITING to RUNNING, and the first heartbeat, in one transaction.

    One UPDATE, since Optuna reads and then writes under FOR UPDATE, which SQLite does not have. With the
    heartbeat, since Optuna never misses a trial that has had none.
    """
    from optuna.storages._rdb.models import TrialHeartbeatModel, TrialModel

    now = datetime.now(UTC).replace(tzinfo=None)  # the database's own record of when, as Optuna writes it
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


def attempt(
    study: optuna.Study,
    storage: RDBStorage,
    slot: optuna.trial.FrozenTrial,
    objective: Callable[[optuna.Trial], float],
) -> optuna.trial.FrozenTrial:
    """Run a slot that was taken, its heart beating, to COMPLETE or PRUNED.

    If it is interrupted, its point waits to be run again; if it fails by an error, that is raised and its
    slot is free. A trial that was given to another (this machine slept, and its heart with it) is left to it.
    """
    with _beating(storage, slot._trial_id):
        try:
            value = objective(optuna.Trial(study, slot._trial_id))
        except optuna.TrialPruned:
            return _tell(study, slot, TrialState.PRUNED, None)
        except optuna.exceptions.UpdateFinishedTrialError:
            return storage.get_trial(slot._trial_id)
        except Exception:
            _tell(study, slot, TrialState.FAIL, None)
            raise
        except BaseException:
            _run_again(study, _tell(study, slot, TrialState.FAIL, None))
            raise
        return _tell(study, slot, TrialState.COMPLETE, value)


def _tell(
    study: optuna.Study, slot: optuna.trial.FrozenTrial, state: TrialState, value: float | None
) -> optuna.trial.FrozenTrial:
    return study.tell(slot.number, value, state, skip_if_finished=True)


def _run_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    with _stable():
        RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


@contextmanager
def _beating(storage: RDBStorage, trial_id: int) -> Iterator[None]:
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
def _stable() -> Iterator[Any]:
    """Optuna calls heartbeats experimental at each use; they are since 2.6 and in use."""
    with catch_warnings():
        filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
