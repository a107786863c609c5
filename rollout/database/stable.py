"""Which archive is stable: the one place that decides which model serves. Servers, the cluster and the
registry are compared with it (rollout/reconcile.py)."""

from sqlalchemy import func, select

from rollout.database.rollouts import Rollouts
from rollout.database.tables import ROLLOUTS
from rollout.state import Rollout
from rollout.targets.target import Candidate


class Stable(Rollouts):
    def stable(self, model: str) -> Candidate | None:
        """The archive whose answers all customers get, but for those of a canary. None before the first
        one."""
        last = self._one(
            select(ROLLOUTS)
            .where(ROLLOUTS.c.model == model)
            .order_by(
                ROLLOUTS.c.active.is_(None),  # the rollout that runs comes first
                func.coalesce(ROLLOUTS.c.ended, ROLLOUTS.c.started).desc(),
                ROLLOUTS.c.id.desc(),
            )
            .limit(1)
        )
        if last is None:
            return None
        return last.candidate if last.phase in ("promoted", "watching") else last.previous

    def reversible(self, model: str) -> Rollout | None:
        """The rollout that promoted the stable archive, where `churn rollback` can take it back."""
        stable = self.stable(model)
        if stable is None or self.current(model) is not None:
            return None
        return self._promoter(model, stable)

    def before(self, model: str, stable: Candidate) -> Candidate | None:
        """The archive that was stable before `stable` was, to which `churn rollback` returns."""
        promoter = self._promoter(model, stable)
        return None if promoter is None else promoter.previous

    def _promoter(self, model: str, stable: Candidate) -> Rollout | None:
        promoted = (r for r in self.all(model) if r.phase == "promoted" and r.previous)
        return next((r for r in promoted if r.candidate.sha256 == stable.sha256), None)
