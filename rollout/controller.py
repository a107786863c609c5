"""The loop that brings a candidate to all customers, or back: observe -> decide -> act -> record.

Each part has a file of its own: observe.py, decide.py, act.py with ending.py, journal.py. A controller may
die between any two lines: the next one takes the lease, observes the target and continues.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from rollout.act import Actions
from rollout.config import RolloutConfig
from rollout.decide import decide
from rollout.ending import Ending
from rollout.errors import LeaseHeld, Overtaken, RolloutError
from rollout.journal import Journal
from rollout.lease import Lease
from rollout.observe import View
from rollout.rules.rule import Rule
from rollout.session import Clock, Connections, Session
from rollout.state import Rollout

FAULT_POINTS = (
    *("leased", "observed", "decided"),
    *("deploy_intended", "deploy_acted", "deploy_confirmed"),
    *("weight_intended", "weight_acted", "weight_confirmed"),
    *("promote_intended", "promote_acted", "promote_registered", "promote_confirmed"),
    *("back_acted", "back_recorded", "back_registered", "ended"),
)
"""Where a test kills a controller: between any two effects that outlive it."""


def no_fault(point: str) -> None:
    """Does nothing."""


class Controller:
    """Controls one model's rollouts. `config` contains the plan, from which `rules` are."""

    def __init__(
        self,
        config: RolloutConfig,
        rules: Sequence[Rule],
        connections: Connections,
        clock: Clock,
        faults: Callable[[str], None] = no_fault,
        holder: str | None = None,
    ) -> None:
        store = connections.store
        self._config, self._store, self._clock, self._faults = config, store, clock, faults
        self._lease = Lease(store, config.lease_s, clock.now, holder)
        self._journal = Journal(config, store, connections.notify, self.holder)
        self._view = View(config, rules, connections)
        session = Session(config, connections, clock, self._lease, self._journal, faults)
        self._actions, self._ending = Actions(session), Ending(session)
        self._known: Rollout | None = None

    @property
    def holder(self) -> str:
        return self._lease.holder

    def run(self, id: str, stop: Callable[[], bool] = lambda: False) -> Rollout:
        """Control rollout `id` until it has ended, or `stop` is true; returns its last state.

        It waits while another controller has the lease, or the database cannot be reached. Raises
        RolloutError for a rollout that does not exist.
        """
        rollout = self._store.load(id)
        while not rollout.over and not stop():
            try:
                rollout = self.tick(id)
            except RolloutError:
                self._clock.sleep(self._config.tick_s)
                continue
            if not rollout.over:
                self._clock.sleep(self._config.tick_s)
        if self._known is not None:
            self._lease.release(rollout.model)
        return rollout

    def tick(self, id: str) -> Rollout:
        """Observe once and do what follows. Returns the rollout after it.

        Raises LeaseHeld while another controller has it, Overtaken when one has taken it in the meantime, and
        RolloutError when the database cannot be reached: then nothing has been done, except for a roll-back,
        which does not wait for the database. The next tick may be tried in each case.
        """
        now = self._clock.now()
        try:
            rollout = self._leased(id, now)
        except (LeaseHeld, Overtaken):
            raise
        except RolloutError:
            self._guard(now)
            raise
        if rollout.over:
            return rollout
        # target, registry and evidence together may take longer than the lease lasts
        with self._lease.renewed(rollout.model, 2 * self._config.ready_timeout_s):
            seen = self._view.observe(rollout, now)
            self._faults("observed")
            rollout = replace(rollout, unready_since=self._view.unready_since(rollout, seen))
            decision = decide(self._config, rollout, seen, self._store.next_request(id))
            self._faults("decided")
            self._known = self._actions.carry_out(rollout, decision, seen)
            # last, so that it never delays the way back
            self._view.save(self._known, seen, decision, self.holder)
        return self._known

    def _leased(self, id: str, now: datetime) -> Rollout:
        """The rollout, after this controller has taken its lease."""
        rollout = self._store.load(id)
        if rollout.over:
            return rollout
        self._lease.take(rollout.model, now)
        self._faults("leased")
        if rollout.controller == self.holder:
            return rollout
        rollout = self._store.load(id)  # the last holder may have written until this moment
        ours = replace(rollout, controller=self.holder)
        if not rollout.controller or rollout.over:
            return ours
        reason = f"{rollout.controller} is gone; {self.holder} goes on"
        return self._journal.save(ours, self._journal.event(ours, now, "take_over", reason))

    def _guard(self, now: datetime) -> None:
        """While the database cannot be reached, no stage advances, but a harmful canary is still taken back,
        as long as no other controller can have the lease. The next tick with a database records it."""
        known = self._known
        if known is None or known.over or not self._lease.held(now):
            return
        decision = decide(self._config, known, self._view.observe(known, now))
        if decision.action in ("roll_back", "fall_back"):
            self._ending.move_back(known)
