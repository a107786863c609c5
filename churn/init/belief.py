"""What is believed of a file: findings with their evidence, and doubts that a person should settle."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.errors import ConfigError


@dataclass(frozen=True)
class Finding:
    """A decision that the file's own evidence supports."""

    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Doubt:
    """A decision that the file cannot settle: `value` is the best guess."""

    key: str
    """What `--answer KEY=VALUE` calls it."""
    value: str
    why: str
    options: tuple[str, ...] = ()
    """Other answers that make sense; empty where any text is one."""


@dataclass
class Notes:
    """Collects findings and doubts in the order in which they are decided, and gives the answers."""

    answers: Mapping[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Column -> why it is no feature."""

    def found(self, what: str, value: object, why: str) -> None:
        self.findings.append(Finding(what, str(value), why))

    def doubted(self, key: str, value: object, why: str, options: tuple[str, ...] = ()) -> None:
        """Records a doubt, or a finding where a person has answered already."""
        if key in self.answers:
            self.found(key, self.answers[key], "your answer")
        else:
            self.doubts.append(Doubt(key, str(value), why, options))

    def answer(self, key: str, options: tuple[str, ...] = ()) -> str | None:
        """The person's answer; None where there is none. Raises ConfigError for one that is no option."""
        given = self.answers.get(key)
        if given is not None and options and given not in options:
            raise ConfigError(f"--answer {key}={given}: there are {', '.join(options)}; name one of them")
        return given
