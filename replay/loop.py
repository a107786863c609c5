"""The whole loop over real history, under a simulated clock.

At each moment: the transactions before it are ingested, features are computed, the customers are served and
every answer is logged; the outcomes that are known by then are joined, the monitors measure, a model that
harms is taken back, the policy decides, and a model is trained, judged and rolled out. Nothing after the
moment is read.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import TrainingError
from core.workspace import Workspace
from monitoring.early_labels import log_e_of_loss
from pipelines.candidates import stored
from pipelines.context import Context, Stages
from replay.canary import Answers, Canaries
from replay.clock import SimulatedClock
from replay.config import ReplayConfig
from replay.ledger import Ledger
from replay.outcomes import Activity, churned
from replay.served import Customers, ServedModel, log_answers
from replay.signals import Answered, losses, measure, paired_losses
from replay.situation import Policy, Situation
from replay.torchserve import LiveServer
from replay.training import materialise, train_model
from retraining.decision import Outcome
from rollout.registry import ModelRegistry
from rollout.state import Change, Rollout
from rollout.store import Store
from training.learn.metrics import evaluate

WHO = "replay"


@dataclass(frozen=True)
class Champion:
    """The model that serves."""

    model: ServedModel
    loss: float
    since: datetime
    """The first moment at which it serves."""
    rollout: Rollout


class Loop:
    """One policy over one history. `files` of the settings are its own workspace."""

    def __init__(
        self,
        settings: Stages,
        replay: ReplayConfig,
        policy: Policy,
        seed: int,
        progress: Callable[[str], None] = lambda message: None,
        server: LiveServer | None = None,
    ) -> None:
        self._settings, self._replay, self._policy = settings, replay, policy
        self._progress, self._server = progress, server
        self._files: Workspace = settings.files
        self._store = Store(settings.rollout.database, settings.rollout.lease_s)
        registry = ModelRegistry(settings.training)
        self._canaries = Canaries(self._store, settings.rollout, registry, replay.requests_per_s, seed)
        self._champion: Champion | None = None
        self._previous: Champion | None = None
        self._answered: list[Answered] = []
        self._tests_of_harm = 0

    def run(self, moments: Sequence[datetime], ledger: Ledger) -> None:
        """Replay the moments in order; the ledger has a row for everything that happened."""
        clock = SimulatedClock(moments[0])
        for step, moment in enumerate(moments):
            clock.move_to(moment)
            self._progress(f"{moment:%Y-%m-%d}: transactions and features")
            context = Context(
                self._settings, moment, self._progress, WHO, known_until=moment, clock=clock.now
            )
            materialise(context, serve=self._server is not None)
            spec = self._settings.features
            customers = Customers.at(moment, spec, self._files)
            activity = Activity(self._files, spec.returns_count_as_life)
            self._serve(customers, ledger)
            if self._observe(step, context, activity, ledger, clock):
                outcome, detail = self._train(context, customers, ledger, clock)
                self._policy.trained(context, outcome, detail)
        self._evaluate(moments[-1], activity, ledger)

    def _serve(self, customers: Customers, ledger: Ledger) -> None:
        """All customers of the moment get an answer of the champion."""
        if self._champion is None:
            ledger.write(customers.moment, "not served", customers=len(customers.users))
            return
        model = self._champion.model
        scores = model.score(customers) if self._server is None else self._server.answer(model, customers)
        before = None if self._previous is None else self._previous.model.score(customers)
        self._answered.append(Answered(customers, model, scores, before))
        if self._server is None:  # a server writes the log itself
            log_answers(model, customers, scores, self._files.predictions)
        ledger.write(
            customers.moment,
            "served",
            customers=len(scores),
            program=model.program,
            mean_score=float(scores.mean()),
            scores_sha256=hashlib.sha256(scores.tobytes()).hexdigest(),
        )

    def _observe(
        self, step: int, context: Context, activity: Activity, ledger: Ledger, clock: SimulatedClock
    ) -> bool:
        """Measure, take a harmful model back, and decide; whether a model is trained."""
        champion, moment = self._champion, context.as_of
        if champion is None:
            ledger.write(moment, "decided", train=True, reason="no model serves yet")
            return True
        earlier = [one for one in self._answered if one.moment < moment]
        spec = self._settings.features
        signals = measure(moment, champion.model, earlier, activity, spec, self._files)
        ledger.write(moment, "measured", **signals.record())
        if self._demote(moment, earlier, activity, ledger, clock):
            champion = self._champion
            assert champion is not None
        situation = Situation(context, step, champion.model, champion.loss, champion.since, signals)
        choice = self._policy.decide(situation)
        ledger.write(moment, "decided", train=choice.train, reason=choice.reason, numbers=choice.numbers)
        return choice.train

    def _train(
        self, context: Context, customers: Customers, ledger: Ledger, clock: SimulatedClock
    ) -> tuple[Outcome, str]:
        """Train, judge and roll out; how that ended, and why."""
        moment = context.as_of
        try:
            trained = train_model(context)
        except TrainingError as error:
            ledger.write(moment, "not trained", reason=str(error))
            return Outcome.FAILED, str(error)
        ledger.write(
            moment, "trained", passed=not trained.refusal, reason=trained.refusal, rows=trained.rows,
            log_loss=trained.loss, program=trained.program,
        )  # fmt: skip
        if trained.candidate is None:
            return Outcome.REFUSED, trained.refusal
        candidate = stored(self._settings, trained.candidate.path, trained.candidate.sha256)
        if self._champion is not None and candidate.sha256 == self._champion.model.candidate.sha256:
            reason = "it is the champion already"
            ledger.write(moment, "not rolled out", reason=reason)
            return Outcome.ROLLED_OUT, reason
        folder = self._files.root / "models" / f"{moment:%Y%m%d}"
        model = ServedModel.load(self._settings, candidate, folder, moment, self._reference())
        return Outcome.ROLLED_OUT, self._roll_out(model, trained.loss, customers, ledger, clock)

    def _roll_out(
        self, model: ServedModel, loss: float, customers: Customers, ledger: Ledger, clock: SimulatedClock
    ) -> str:
        """Let the canary be judged; how that ended."""
        champion, now = self._champion, clock.now()
        stable = None if champion is None else champion.model.candidate
        answers = self._answers(model if champion is None else champion.model, model, customers)
        change = Change(model.candidate, stable, WHO, now, f"trained at {customers.moment:%Y-%m-%d}")
        begun = self._store.start(
            self._settings.serving.model_name, change, self._canaries.config, id=f"{now:%Y%m%d-%H%M%S}"
        )
        ended = self._canaries.control(begun, stable, answers, clock)
        ledger.write(
            clock.now(), "rolled out", program=model.program, phase=ended.phase, reason=ended.outcome,
            stage=ended.stage,
        )  # fmt: skip
        if ended.phase == "promoted":
            self._previous = self._champion
            self._champion = Champion(model, loss, clock.now(), ended)
        return ended.outcome

    def _demote(
        self,
        moment: datetime,
        earlier: Sequence[Answered],
        activity: Activity,
        ledger: Ledger,
        clock: SimulatedClock,
    ) -> bool:
        """Take the champion back if its known outcomes show that the model before would have lost less.

        Each moment is judged once, when its outcomes are known; the k-th judgement has alpha/(k(k+1)), so all
        together are wrong with a probability of at most alpha.
        """
        champion, previous = self._champion, self._previous
        if champion is None or previous is None:
            return False
        horizon = self._settings.features.horizon
        known = [
            one
            for one in earlier
            if one.before is not None and one.model is champion.model and one.moment + horizon <= moment
        ]
        if not known:
            return False
        self._tests_of_harm += 1
        k = self._tests_of_harm
        difference = paired_losses(known[-1], activity, horizon)
        log_e = log_e_of_loss(difference, 0.0)
        needed = float(np.log(k * (k + 1) / self._replay.demotion_alpha))
        numbers = {"mean_nats": float(difference.mean()), "log_e": log_e, "needed": needed}
        ledger.write(
            moment, "compared", program=champion.model.program, before=previous.model.program, **numbers
        )
        if log_e < needed:
            return False
        reason = f"the model before loses {difference.mean():.4f} nats less a customer"
        again = self._store.reopen(champion.rollout, WHO, reason, clock.now())
        answers = self._answers(previous.model, champion.model, known[-1].customers)
        ended = self._canaries.control(again, champion.model.candidate, answers, clock)
        ledger.write(clock.now(), "demoted", program=champion.model.program, phase=ended.phase, reason=reason)
        self._champion, self._previous = previous, None
        return True

    def _evaluate(self, last: datetime, activity: Activity, ledger: Ledger) -> None:
        """What is known of all answers at the end: the scores of the replay."""
        horizon = self._settings.features.horizon
        for one in self._answered:
            if one.moment + horizon > last:
                continue
            outcome = churned(activity.return_days(one.customers.users, one.moment), horizon)
            found = evaluate(outcome, one.scores, one.model.bundle.threshold)
            nats = float(losses(one, activity, horizon).sum())
            shown = {name: found[name] for name in ("log_loss", "auroc", "ece", "base_rate")}
            ledger.write(
                one.moment, "came true", program=one.model.program, nats=nats, rows=len(outcome), **shown
            )

    def _reference(self) -> datetime:
        """The newest snapshot of the training rows."""
        import pandas as pd

        from training.learn.split import split_rows

        keys = pd.read_parquet(self._files.training_set, columns=["user_id", "event_timestamp", "churned"])
        settings = self._settings
        split = split_rows(keys, settings.data.shape, settings.features.horizon, settings.training)
        newest: datetime = keys["event_timestamp"].iloc[split.train].max().to_pydatetime()
        return newest

    def _answers(self, stable: ServedModel, canary: ServedModel, customers: Customers) -> Answers:
        return Answers(
            customers.users,
            stable.score(customers),
            canary.score(customers),
            stable.bundle.threshold,
            canary.bundle.threshold,
        )


def replay_policy(
    settings: Stages,
    replay: ReplayConfig,
    policy: Policy,
    moments: Sequence[datetime],
    seed: int,
    ledger_file: Path,
    progress: Callable[[str], None] = lambda message: None,
    server: LiveServer | None = None,
) -> list[dict[str, Any]]:
    """Replay one policy in the workspace of `settings`; returns the rows of its ledger. Without `server`,
    customers are served in this process."""
    ledger = Ledger(ledger_file)
    try:
        Loop(settings, replay, policy, seed, progress, server).run(moments, ledger)
    finally:
        ledger.close()
    return ledger.rows
