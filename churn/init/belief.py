"""What is found in a file: decisions with their evidence, and doubts that a person should decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import ConfigError


@dataclass(frozen=True)
class Finding:
    """A decision that the content of the file supports."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Doubt:
    """A decision that the content of the file leaves open. `value` is the best guess."""

    key: str
    """Its key in `--answer KEY=VALUE`."""
    value: str
    why: str
    options: tuple[str, ...] = ()
    """The possible answers; empty if any text is possible."""


@dataclass
class Notes:
    """Collects findings and doubts in the order of the decisions, and returns the answers of the user."""

    answers: Mapping[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Column -> why it is not a feature."""

    def found(self, what: str, value: object, why: str) -> None:
        self.findings.append(Finding(what, str(value), why))

    def doubted(self, key: str, value: object, why: str, options: tuple[str, ...] = ()) -> None:
        """Record a doubt, or a finding if the user has answered already."""
        if key in self.answers:
            self.found(key, self.answers[key], "your answer")
        else:
            self.doubts.append(Doubt(key, str(value), why, options))

    def answer(self, key: str, options: tuple[str, ...] = ()) -> str | None:
        """The user's answer, or None. Raises ConfigError for an answer that is not one of the options."""
        given = self.answers.get(key)
        if given is not None and options and given not in options:
            raise ConfigError(f"--answer {key}={given}: choose one of {', '.join(options)}")
        return given
