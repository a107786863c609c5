"""Which version serves, which is on trial, which served before; and who decided that, when and why.

The aliases `champion`, `challenger` and `previous` of the registered model are the state. Every change is a
decision, written before the aliases move and confirmed after: one tag of the registered model each, so that
the log lives where the aliases do, on any MLflow backend, and nothing moves without a record. Whoever asks
again for what a crash cut short finishes it. At no moment is there no champion where there was one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, Self

from data.config import utc_text
from data.errors import GateFailure, TrainingError
from training.config import TrainingConfig
from training.registry.mlflow_client import client_of, reaching

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
PREFIX = "decision."
LONGEST_VALUE = 5000
"""Characters of a tag of a registered model (mlflow/utils/validation.py)."""

SERVABLE = ("passed", "overridden")
"""States of the gates in which a version may become champion."""


@dataclass(frozen=True)
class Version:
    number: str
    run_id: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Decision:
    sequence: int
    """How many there were before."""
    action: str
    """`challenge`, `promote` or `rollback`."""
    version: str
    who: str
    when: str
    """UTC, ISO 8601."""
    why: str
    before: Mapping[str, str | None]
    after: Mapping[str, str | None]
    """Alias -> version, of all that change."""
    numbers: Mapping[str, float]
    applied: bool = False
    """False: a crash came between; the same command finishes it."""

    @property
    def key(self) -> str:
        """Sorts as they were taken; two decisions of the same moment do not overwrite each other."""
        content = asdict(replace(self, applied=False))
        return f"{PREFIX}{self.sequence:06d}.{hashlib.sha256(_json(content).encode()).hexdigest()[:12]}"

    @classmethod
    def read(cls, text: str) -> Self:
        return cls(**json.loads(text))


class Registry:
    """The registered model `training.model_name`. Raises TrainingError when the server cannot be reached."""

    def __init__(self, training: TrainingConfig) -> None:
        self._name, self._uri = training.model_name, training.tracking_uri

    @property
    def exists(self) -> bool:
        """False where the database has not even been made; asking MLflow would make it."""
        file = self._uri.removeprefix("sqlite:///")
        return file == self._uri or Path(file).is_file()

    def aliases(self) -> dict[str, str]:
        """Alias -> version number; empty before the first version."""
        return (
            {str(name): str(number) for name, number in self._model().aliases.items()}
            if self._known()
            else {}
        )

    def versions(self) -> list[Version]:
        """All versions, the newest first."""
        if not self._known():
            return []
        with reaching(self._uri):
            found = self._client.search_model_versions(f"name = '{self._name}'")
        return sorted((_version(v) for v in found), key=lambda version: -int(version.number))

    def version(self, number: str) -> Version:
        """Raises TrainingError for a version that does not exist."""
        for version in self.versions():
            if version.number == number:
                return version
        raise TrainingError(f"{self._name}: no version {number}; `churn registry list` shows those there are")

    def champion(self) -> Version | None:
        """The version that serves, or None."""
        if not self.exists:
            return None
        number = self.aliases().get(CHAMPION)
        return None if number is None else self.version(number)

    def history(self) -> list[Decision]:
        """Every decision, the oldest first."""
        if not self._known():
            return []
        tags = self._model().tags
        return [Decision.read(tags[key]) for key in sorted(tags) if key.startswith(PREFIX)]

    def challenge(
        self, number: str, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> Decision | None:
        """Put a version on trial. None if it is already, or serves."""
        if self.aliases().get(CHAMPION) == number:
            return None
        return self._decide("challenge", number, {CHALLENGER: number}, who, when, why, numbers)

    def promote(
        self, number: str, who: str, when: datetime, why: str, numbers: Mapping[str, float]
    ) -> Decision | None:
        """Make a version the champion, and the champion the previous one. None if it is already.

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
        """Make the previous version the champion again. There is no previous one then: a second rollback
        would bring back what the first took out. Raises TrainingError where there is none."""
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
        """Set champion and previous to what customers are answered by, which is decided elsewhere
        (rollout/registry.py). None if they are so already. It is a `rollback` where an earlier version
        returns, else a `promote`."""
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
        """Bring the aliases to where the decision wants them, and confirm it. Twice is as good as once."""
        with reaching(self._uri):
            for alias, number in decision.after.items():
                if number is None:
                    self._client.delete_registered_model_alias(self._name, alias)
                else:
                    self._client.set_registered_model_alias(self._name, alias, number)
        self._write(replace(decision, applied=True))

    def _unfinished(self, action: str | None = None, number: str | None = None) -> Decision | None:
        """The newest decision, if it is this one and was cut short."""
        newest = next(reversed(self.history()), None)
        if newest is None or newest.applied or action not in (None, newest.action):
            return None
        return newest if number in (None, newest.version) else None

    def _write(self, decision: Decision) -> None:
        text = _json(asdict(decision))
        if len(text) > LONGEST_VALUE:
            raise TrainingError(f"registry {decision.action}: the reason is too long for the log; shorten it")
        with reaching(self._uri):
            self._client.set_registered_model_tag(self._name, decision.key, text)

    def _known(self) -> bool:
        if not self.exists:
            return False
        with reaching(self._uri):
            return bool(self._client.search_registered_models(f"name = '{self._name}'"))

    def _model(self) -> Any:
        with reaching(self._uri):
            return self._client.get_registered_model(self._name)

    @property
    def _client(self) -> Any:
        return client_of(self._uri)


def _version(found: Any) -> Version:
    return Version(str(found.version), str(found.run_id), str(found.source), dict(found.tags))


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)
