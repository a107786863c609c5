"""The archive that `churn serve` serves: the one that the database of rollouts records as stable.

Before the first record it is the registry's champion (made by the canary at the end of `churn run`), or
else the archive that was packaged last; it is then recorded as stable. On `churn reload`, it is the archive
that was packaged last, unless a rollout runs, and is recorded once it serves.
"""

import logging
from datetime import datetime
from pathlib import Path

from core.errors import ArchiveError
from pipelines.adopt import record_stable
from pipelines.candidates import candidate_at, champion, found_here, stored
from pipelines.context import Stages
from pipelines.live import archive_record
from pipelines.rollout import open_store
from rollout.targets.target import Candidate

log = logging.getLogger("churn.rollout")


class Served:
    """Call it for the path of the archive that is served: at the start, then at each requested change."""

    def __init__(self, settings: Stages, who: str, now: datetime) -> None:
        self._settings, self._store = settings, open_store(settings)
        self._model, self._who, self._started_at = settings.serving.model_name, who, now
        self._started = False

    def __call__(self) -> Path:
        """Raises ServingError, ArchiveError or RolloutError if no archive may be served."""
        first, self._started = not self._started, True
        return (self._first() if first else self._change()).path

    def changed(self, archive: Path, who: str, now: datetime) -> None:
        """Records a change that a user requested, after the archive serves."""
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
        self._store.refuse_while_running(self._model)
        return self._newest()

    def _newest(self) -> Candidate:
        record = archive_record(self._settings.files)
        return stored(self._settings, Path(record["path"]), record["sha256"])

    def _champion(self) -> Candidate | None:
        """None: there is no champion, or it cannot serve with the configured features."""
        try:
            return champion(self._settings)
        except ArchiveError:
            return None

    def _recorded(self, candidate: Candidate, why: str) -> Candidate:
        self._record(candidate, why, self._who, self._started_at)
        return candidate

    def _record(self, candidate: Candidate, why: str, who: str, now: datetime) -> None:
        record_stable(self._store, self._model, candidate, who, why, now)
