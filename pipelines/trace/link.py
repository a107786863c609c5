"""One link of the chain from a prediction to its source, with what was verified about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Proof:
    """A statement about a link that was checked."""

    statement: str
    holds: bool


@dataclass(frozen=True)
class Link:
    """A thing that the prediction was made from."""

    name: str
    facts: Mapping[str, object]
    proofs: Sequence[Proof] = ()
    rows: Sequence[Mapping[str, object]] = field(default=())
    """A table that belongs to the link: the source rows."""

    @property
    def holds(self) -> bool:
        return all(proof.holds for proof in self.proofs)


def same(what: str, found: object, expected: object) -> Proof:
    """That a digest is the one that another link names."""
    if found == expected:
        return Proof(f"{what} is {_short(expected)}, as named", True)
    return Proof(f"{what} is {_short(found)}, named is {_short(expected)}", False)


def _short(value: object) -> str:
    return "missing" if value in (None, "") else str(value)[:16]
