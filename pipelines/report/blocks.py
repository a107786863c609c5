"""What a section of the page consists of. The sections are plain data; one template writes them as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "warn", "bad", "soft"]
"""How a text is emphasised. A tone only supports what the text says."""


@dataclass(frozen=True)
class Cell:
    text: str
    tone: Tone = ""
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """On a narrow screen each row is a card, with the column's name before each value."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    kind = "table"


@dataclass(frozen=True)
class Figure:
    """An inline SVG. `caption` says in words what it shows."""

    svg: str
    caption: str
    is_wide: bool = False

    kind = "figure"


@dataclass(frozen=True)
class Figures:
    figures: Sequence[Figure]

    kind = "figures"


@dataclass(frozen=True)
class Tile:
    value: str
    label: str
    tone: Tone = ""


@dataclass(frozen=True)
class Tiles:
    tiles: Sequence[Tile]

    kind = "tiles"


@dataclass(frozen=True)
class Text:
    text: str
    tone: Tone = ""

    kind = "text"


@dataclass(frozen=True)
class More:
    """A part that a reader opens; the browser does that without a script."""

    summary: str
    blocks: Sequence["Block"]

    kind = "more"


Block = Table | Figure | Figures | Tiles | Text | More


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]


def number(value: float | None, form: str = ".4f") -> Cell:
    """A number of a table; a dash for a missing one."""
    missing = value is None or value != value
    return Cell("–" if missing else format(value, form), "soft" if missing else "", is_number=True)


def words(name: str) -> str:
    """A name in snake_case as words."""
    return name.replace("_", " ")
