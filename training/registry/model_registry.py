"""The versions with the aliases `champion`, `challenger` and `previous`, and the log of decisions about them.

The aliases of the registered model are the state. Every change is a decision, written before the aliases
change and confirmed afterwards (a write-ahead log). Each decision is a tag of the registered model, so the
log is stored with the aliases on any MLflow backend, and no alias changes without a record. Repeating a
command that a crash interrupted completes it. Once there is a champion, there is one at every moment.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, Self

from core.errors import GateFailure, TrainingError
from data.config import utc_text
from training.config import TrainingConfig
from training.registry.mlflow_client import client_of, mlflow_errors

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
PREFIX = "decision."
LONGEST_VALUE = 5000
"""Characters of a tag of a registered model (mlflow/utils/validation.py)."""

SERVABLE = ("passed", "overridden")
"""States of the gates with which a version may become champion."""


@dataclass(frozen=True)
class Version:
    """A registered version; `source` is the location of its archive."""

    number: str
    run_id: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    """A change of aliases: who decided it, when and why."""

    sequence: int
    """Number of earlier decisions."""
    action: str
    """`challenge`, `promote` or `rollback`."""
    version: str
    who: str
    when: str
    """UTC, ISO 8601."""
    why: str
    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    """`before` and `after`: alias -> version, for the aliases that change."""
    numbers: Mapping[str, float]
    applied: bool = False
    """False: the process crashed before the aliases changed; the same command completes it."""

    @property
    def key(self) -> str:
        """Tag key. Keys sort in the order of decisions; simultaneous decisions have different keys."""
        content = asdict(replace(self, applied=False))
        return f"{PREFIX}{self.sequence:06d}.{hashlib.sha256(_json(content).encode()).hexdigest()[:12]}"

    @classmethod
    def read(cls, text: str) -> Self:
        """From the text of its tag."""
        return cls(**json.loads(text))


class Registry:
    """The registered model `training.model_name`. Raises TrainingError when the server cannot be reached."""

    def __init__(self, training: TrainingConfig) -> None:
        self._name, self._uri = training.model_name, training.tracking_uri

    @property
    def exists(self) -> bool:
        """False if the SQLite file does not exist; a call of MLflow would create it."""
        file = self._uri.removeprefix("sqlite:///")
        return file == self._uri or Path(file).is_file()

    def aliases(self) -> dict[str, str]:
        """Alias -> version number; empty before the first version."""
        return (
            {str(name): str(number) for name, number in self._model().aliases.items()}
            if self._is_registered()
            else {}
        )

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        if not self._is_registered():
            return []
        with mlflow_errors(self._uri):
            found = self._client.search_model_versions(f"name = '{self._name}'")
        return sorted((_version(v) for v in found), key=lambda version: -int(version.number))

    def version(self, number: str) -> Version:
        """One version. Raises TrainingError if it does not exist."""
        for version in self.versions():
            if version.number == number:
                return version
        raise TrainingError(
            f"{self._name}: no version {number}; `churn registry list` shows the existing ones"
        )

    def champion(self) -> Version | None:
        """The version that serves, or None."""
        if not self.exists:
            return None
        number = self.aliases().get(CHAMPION)
        return None if number is None else self.version(number)

    def history(self) -> list[Decision]:
        """Every decision, the oldest first."""
        if not self._is_registered():
            return []
        tags = self._model().tags
        return [Decision.read(tags[key]) for key in sorted(tags) if key.startswith(PREFIX)]

    def challenge(
        self, number: str, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> Decision | None:
        """Makes a version the challenger. None if it is the challenger or the champion already."""
        if self.aliases().get(CHAMPION) == number:
            return None
        return self._decide("challenge", number, {CHALLENGER: number}, who, when, why, numbers)

    def promote(
        self, number: str, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> Decision | None:
        """Makes a version the champion, and the old champion `previous`. None if it is the champion already.

        Raises GateFailure for a version that did not pass the gates, TrainingError without a reason.
        """
        version, now = self.version(number), self.aliases()
        state = version.tags.get("gates", "unknown")
        if state not in SERVABLE:
            raise GateFailure(f"{self._name} version {number}: gates {state}; only one that passed may serve")
        champion = now.get(CHAMPION)
        # set in this order: the old champion has its second name before it loses the first
        after: dict[str, str | None] = {} if champion == number else {PREVIOUS: champion}
        after[CHAMPION] = number
        if now.get(CHALLENGER) == number:
            after[CHALLENGER] = None
        if champion is None:
            after.pop(PREVIOUS, None)
        return self._decide("promote", number, after, who, when, why, numbers)

    def rollback(self, who: str, when: datetime, why: str) -> Decision | None:
        """Makes the previous version the champion again. Afterwards there is no previous one, since a second
        rollback would restore the version that the first removed. Raises TrainingError without a previous
        version."""
        last = self._unfinished("rollback")
        number = last.version if last else self.aliases().get(PREVIOUS)
        if number is None:
            raise TrainingError(f"{self._name}: no previous champion; name one with `churn registry promote`")
        return self._decide("rollback", number, {CHAMPION: number, PREVIOUS: None}, who, when, why, {})

    def follow(
        self,
        number: str,
        previous: str | None,
        who: str,
        when: datetime,
        why: str,
        numbers: Mapping[str, float],
    ) -> Decision | None:
        """Sets champion and previous to the versions that the rollout serves (rollout/registry.py). None if
        they are set already. The action is `rollback` if an earlier version returns, else `promote`."""
        if last := self._unfinished():
            self._apply(last)
        now = self.aliases()
        # set in this order: the old champion has its second name before it loses the first
        after: dict[str, str | None] = {PREVIOUS: previous, CHAMPION: number}
        if now.get(CHALLENGER) == number:
            after[CHALLENGER] = None
        returns = int(number) < int(now.get(CHAMPION, number))
        return self._decide("rollback" if returns else "promote", number, after, who, when, why, numbers)

    def _decide(
        self,
        action: str,
        number: str,
        after: Mapping[str, str | None],
        who: str,
        when: datetime,
        why: str,
        numbers: Mapping[str, float],
    ) -> Decision | None:
        if not why.strip():
            raise TrainingError(f"registry {action}: give a --reason; it is recorded with your name")
        pending = self._unfinished(action, number)
        if pending is not None:
            self._apply(pending)
            return pending
        now = self.aliases()
        changed = {alias: target for alias, target in after.items() if now.get(alias) != target}
        if not changed:
            return None
        decision = Decision(
            sequence=len(self.history()),
            action=action,
            version=number,
            who=who,
            when=utc_text(when),
            why=" ".join(why.split()),
            before={alias: now.get(alias) for alias in changed},
            after=changed,
            numbers={name: round(float(value), 6) for name, value in numbers.items() if isfinite(value)},
        )
        self._write(decision)
        self._apply(decision)
        return decision

    def _apply(self, decision: Decision) -> None:
        """Sets the aliases as decided, and confirms the decision. Idempotent."""
        with mlflow_errors(self._uri):
            for alias, number in decision.after.items():
                if number is None:
                    self._client.delete_registered_model_alias(self._name, alias)
                else:
                    self._client.set_registered_model_alias(self._name, alias, number)
        self._write(replace(decision, applied=True))

    def _unfinished(self, action: str | None = None, number: str | None = None) -> Decision | None:
        """The newest decision if it matches and was not completed."""
        newest = next(reversed(self.history()), None)
        if newest is None or newest.applied or action not in (None, newest.action):
            return None
        return newest if number in (None, newest.version) else None

    def _write(self, decision: Decision) -> None:
        text = _json(asdict(decision))
        if len(text) > LONGEST_VALUE:
            raise TrainingError(f"registry {decision.action}: the reason is too long for the log; shorten it")
        with mlflow_errors(self._uri):
            self._client.set_registered_model_tag(self._name, decision.key, text)

    def _is_registered(self) -> bool:
        if not self.exists:
            return False
        with mlflow_errors(self._uri):
            return bool(self._client.search_registered_models(f"name = '{self._name}'"))

    def _model(self) -> Any:
        with mlflow_errors(self._uri):
            return self._client.get_registered_model(self._name)

    @property
    def _client(self) -> Any:
        return client_of(self._uri)


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id), str(found.source), dict(found.tags))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
