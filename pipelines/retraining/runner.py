"""Carries out a granted run: lease, steps, gates, rollout. Any process can continue a run that has stopped.

A run has one lease with a fencing token (rollout/database/fencing.py). Before each step, and in the
transaction that starts the rollout, the token has to be the newest. A step whose result is complete is not
repeated (pipelines/engine.py).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from core.errors import ChurnError, GateFailure
from core.workspace import RunWorkspace
from pipelines.context import Context
from pipelines.engine import Step, is_done, run_steps
from pipelines.retraining.folders import close_folder, open_folder
from pipelines.retraining.steps import DATA, RUN_STEPS, erased_since
from retraining.decision import Outcome
from retraining.ledger import Ledger, Run
from rollout.database.fencing import Fence
from rollout.database.leases import new_holder
from rollout.errors import Overtaken, RolloutError

ROLLOUT = "rollout"


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    run: str
    outcome: Outcome
    detail: str
    rollout: str | None = None
    refusal: GateFailure | None = None


def carry_out(
    context: Context, ledger: Ledger, run: Run, started: Callable[[str], None] = lambda title: None
) -> Done:
    """Runs, or continues, `run` to its end.

    A refusal of the gates ends it, as does bad data; a crash leaves it open, for `churn retrain resume`.
    Raises LeaseHeld while another process runs it, Overtaken where another one has taken it over.
    """
    config, clock = context.settings.retrain, context.now
    token = ledger.take_token(run.model, new_holder(), clock(), config.lease_s)
    fence = Fence(run.model, run.id, token)
    place = open_folder(context.settings.files, fence)
    work = _Work(replace(context, place=place), ledger, fence, place, started)
    try:
        with _renewed(ledger, fence, clock, config.lease_s):
            try:
                done = work.to_the_end(run)
            except (Overtaken, RolloutError):
                raise  # another process has taken over, or a rollout runs: the run stays open
            except GateFailure as refusal:
                ledger.end(fence, Outcome.REFUSED, str(refusal), clock())
                done = Done(run.id, Outcome.REFUSED, str(refusal), refusal=refusal)
            except ChurnError as error:
                ledger.end(fence, Outcome.FAILED, str(error), clock())
                raise
        close_folder(context.settings.files, run.id)
        return done
    finally:
        with suppress(RolloutError):  # it expires anyway
            ledger.release_token(fence, clock())


@dataclass(frozen=True)
class _Work:
    context: Context
    ledger: Ledger
    fence: Fence
    place: RunWorkspace
    started: Callable[[str], None]

    def to_the_end(self, run: Run) -> Done:
        from pipelines.loop import gate_failure

        if run.rollout is None:
            for step in RUN_STEPS:
                self._step(step)
                if step.name == "gates" and (refusal := gate_failure(self.place)) is not None:
                    raise refusal
        rollout = run.rollout or self._rollout()
        detail = f"rollout {rollout} was started"
        self.ledger.end(self.fence, Outcome.ROLLED_OUT, detail, self.context.now())
        return Done(run.id, Outcome.ROLLED_OUT, detail, rollout)

    def _step(self, step: Step) -> None:
        if step.name != DATA.name and erased_since(self.place):
            raise ChurnError(
                f"run {self.fence.run}: customers were erased after it began, and its rows hold them; it is"
                " given up and its rows are removed: start another one"
            )
        self.started(step.title)
        if is_done(step, self.context):
            self._record(step.name, "skipped")
            return
        self._record(step.name, "began")
        run_steps([step], self.context)
        self._record(step.name, "ended")

    def _rollout(self) -> str:
        """Uploads the archive and starts its rollout. Until the transaction at the end, nothing refers to the
        upload."""
        from pipelines.deploy import REPORT, deploy
        from pipelines.live import archive_record
        from pipelines.rollout import open_store, start

        self.started("Start the rollout")
        self._record(ROLLOUT, "began")
        archive = archive_record(self.place)
        report = self.place.gate_report / REPORT
        candidate = deploy(self.context, Path(archive["path"]), report).candidate
        self.ledger.record_candidate(self.fence, candidate)
        stable = open_store(self.context.settings).stable(self.fence.model)
        if stable is not None and stable.version == candidate.version:
            raise GateFailure(f"version {candidate.version} serves already: training gave the same model")
        begun = start(self.context, candidate, f"retraining run {self.fence.run}", self.fence)
        self._record(ROLLOUT, "ended")
        return begun.id

    def _record(self, step: str, what: str) -> None:
        self.ledger.record_step(self.fence, step, what, self.context.now())


@contextmanager
def _renewed(ledger: Ledger, fence: Fence, clock: Callable[[], datetime], lease_s: float) -> Iterator[None]:
    """Renews the lease in a thread during the block: a step takes longer than the lease."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(lease_s / 3):
            try:
                ledger.renew_token(fence, clock(), lease_s)
            except Overtaken:
                return  # the next write of the run is refused
            except RolloutError:
                continue  # the database cannot be reached; the next attempt may succeed

    thread = threading.Thread(target=work, name="retraining-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
