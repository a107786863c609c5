"""The documents as tests read them: code blocks with their notes, links, and headings."""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "kserve" / "README.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
FENCE = re.compile(
    r"(?: *<!-- (?P<note>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str
    note: str
    """The comment above the block: `run by: TEST` or `not run: REASON`; empty where there is none."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}: {self.text.splitlines()[0]}"

    @property
    def lines(self) -> list[str]:
        """Its lines without blank ones."""
        return [line for line in self.text.splitlines() if line.strip()]


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, found["language"], textwrap.dedent(found["text"]).strip(), found["note"] or "")
        for found in FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(markdown: str) -> set[str]:
    """The anchors of the headings, as Python-Markdown and GitHub make them."""
    titles = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
