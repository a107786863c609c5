"""Which archive `churn serve` serves: what the database of rollouts says is stable.

Before anything was served, it is the registry's champion, which a canary at the end of `churn run` made so,
and without one what was packaged last; that is recorded as stable. When somebody asks for a change (`churn
reload`), it is what was packaged last, unless a rollout runs, and recorded when it serves.
"""

import logging
from datetime import datetime
from pathlib import Path

from core.errors import ArchiveError
from pipelines.candidates import candidate_at, found_here, stored
from pipelines.context import Stages
from pipelines.live import archive_record
from pipelines.rollout import open_store
from rollout.errors import RolloutError
from rollout.state import Change
from rollout.targets.target import Candidate

log = logging.getLogger("churn.rollout")


class Served:
    """Call it for the archive that a start or a change takes."""

    def __init__(self, settings: Stages, who: str, now: datetime) -> None:
        self._settings, self._store = settings, open_store(settings)
        self._model, self._who, self._started_at = settings.serving.model_name, who, now
        self._started = False

    def __call__(self) -> Path:
        """Raises ServingError, ArchiveError or RolloutError where there is none that may be served."""
        first, self._started = not self._started, True
        return (self._first() if first else self._change()).path

    def changed(self, archive: Path, who: str, now: datetime) -> None:
        """For the record, after a change that somebody asked for."""
        why = f"{who}: served at once by churn reload, without a rollout"
        self._record(candidate_at(archive), why, who, now)

    def _first(self) -> Candidate:
        stable = self._store.stable(self._model)
        if stable is not None:
            try:
                return found_here(self._settings, stable)
            except ArchiveError as error:
                if self._store.current(self._model) is not None:
                    raise
                log.warning("%s; what was packaged last is served instead, and recorded", error)
                return self._recorded(self._newest(), f"served instead of version {stable.version}: {error}")
        first = self._champion() or self._newest()
        return self._recorded(first, "served when nothing had been recorded as stable")

    def _change(self) -> Candidate:
        running = self._store.current(self._model)
        if running is not None:
            raise RolloutError(
                f"rollout {running.id} is running; wait for its end or `churn rollout abort --reason ...`"
            )
        return self._newest()

    def _newest(self) -> Candidate:
        record = archive_record(self._settings.files)
        return stored(self._settings, Path(record["path"]), record["sha256"])

    def _champion(self) -> Candidate | None:
        """None: there is no champion, or none that could serve with the features of today."""
        from pipelines.champion import champion

        try:
            return champion(self._settings)
        except ArchiveError:
            return None

    def _recorded(self, candidate: Candidate, why: str) -> Candidate:
        self._record(candidate, why, self._who, self._started_at)
        return candidate

    def _record(self, candidate: Candidate, why: str, who: str, now: datetime) -> None:
        before = self._store.stable(self._model)
        if before is None or before.sha256 != candidate.sha256:
            self._store.served_at_once(self._model, Change(candidate, before, who, now, why))
