"""Hooks of mkdocs (mkdocs.yml): pages from the code and from outside of `docs/`, links, and pictures as SVG.

Nothing is fetched, neither when the site is built nor when it is read.
"""

import os
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

import reference

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "kserve/README.md": "how-to/kserve.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Path in the repository -> path in the site, for pages that are not stored in `docs/`."""

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
MERMAID = re.compile(r"```mermaid\nflowchart TD\n(.*?)```", re.DOTALL)


def on_config(config: Any) -> Any:
    """Runbooks and decisions are listed in the navigation by their files."""
    for title, folder in {"Runbooks": "runbooks", "Decisions": "adr"}.items():
        pages = [f"{folder}/{path.name}" for path in sorted((ROOT / "docs" / folder).glob("*.md"))]
        config.nav = [*config.nav, {title: pages}]
    return config


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File

    made = reference.pages() | {to: (ROOT / path).read_text(encoding="utf-8") for path, to in OUTSIDE.items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    site_path = page.file.src_uri
    origin = {to: path for path, to in OUTSIDE.items()}.get(site_path, f"docs/{site_path}")
    return MERMAID.sub(lambda found: flowchart(found[1]), relink(markdown, origin, site_path))


def relink(markdown: str, origin: str, site_path: str) -> str:
    """The same with links from page to page of the site.

    A link to a file of the repository that is no page becomes its text: the site does not contain the file.
    """

    def site_link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        inside = OUTSIDE.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if inside is None:
            return text
        return f"[{text}]({os.path.relpath(inside, posixpath.dirname(site_path) or '.')}{anchor})"

    return LINK.sub(site_link, markdown)


# --- pictures -------------------------------------------------------------------------------------

ACROSS, DOWN, WIDTH, HEIGHT = 220, 62, 104, 30
"""Pixels: distance of two nodes and of two rows, size of a node."""


def flowchart(text: str) -> str:
    """SVG of a flowchart whose lines are `name[label]` or `name --> name`; ValueError for any other.

    A node is in the row below the lowest node that leads to it. Nodes of a row are in the order of lines.
    """
    labels: dict[str, str] = {}
    arrows: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if node := re.fullmatch(r"(\w+)\[([^\]]+)\]", line):
            labels[node[1]] = node[2]
        elif arrow := re.fullmatch(r"(\w+) --> (\w+)", line):
            arrows.append((arrow[1], arrow[2]))
        else:
            raise ValueError(f"flowchart: {line!r} is neither `name[label]` nor `name --> name`")
    rows: dict[int, list[str]] = {}
    for name in labels:
        rows.setdefault(_row(name, arrows), []).append(name)
    widest = max(map(len, rows.values()))
    places = {
        name: (ACROSS * (widest / 2 + place - (len(names) - 1) / 2), DOWN * row + DOWN / 2)
        for row, names in rows.items()
        for place, name in enumerate(names)
    }
    lines = [_arrow(*places[one], *places[other]) for one, other in arrows]
    boxes = [_box(*places[name], label) for name, label in labels.items()]
    width, height = ACROSS * widest, DOWN * len(rows)
    size = f'width="{width}" viewBox="0 0 {width} {height}"'
    marker = 'id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    defs = f'<defs><marker {marker}><path d="M0 0L8 4L0 8z"/></marker></defs>'
    return f'<svg class="flowchart" {size} role="img">{defs}{"".join(lines)}{"".join(boxes)}</svg>'


def _row(name: str, arrows: list[tuple[str, str]]) -> int:
    return 1 + max((_row(above, arrows) for above, below in arrows if below == name), default=-1)


def _box(x: float, y: float, label: str) -> str:
    left, top = x - WIDTH / 2, y - HEIGHT / 2
    box = f'<rect x="{left:g}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
    return f'{box}<text x="{x:g}" y="{y + 4:g}">{escape(label)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    start, end = y + HEIGHT / 2, to_y - HEIGHT / 2
    middle = (start + end) / 2
    # an arrow over several rows turns at once, to pass beside the nodes between them
    first = f"{x:g} {middle:g}" if end - start < DOWN else f"{to_x:g} {start + 10:g}"
    return f'<path class="arrow" d="M{x:g} {start:g}C{first} {to_x:g} {middle:g} {to_x:g} {end:g}"/>'
