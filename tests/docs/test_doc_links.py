"""Links of the documents lead to files and headings that exist."""

import posixpath
import re
from pathlib import Path

import pytest
import reference
import site_pages

from support.documents import PAGES, REPOSITORY, anchors, prose

MADE = reference.pages()
"""Pages that exist in the site only."""
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target, anchor in LINK.findall(prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path = posixpath.normpath((page.parent / target).as_posix()) if target else page.as_posix()
        inside = Path(path).relative_to(REPOSITORY / "docs").as_posix() if "/docs/" in path else ""
        outside = {to: origin for origin, to in site_pages.OUTSIDE.items()}
        file = REPOSITORY / outside[inside] if inside in outside else Path(path)
        text = MADE.get(inside) or (
            file.read_text(encoding="utf-8") if file.suffix == ".md" and file.exists() else ""
        )
        if not text and not file.exists():
            wrong.append(target)
        elif anchor and anchor not in anchors(text):
            wrong.append(f"{target}#{anchor}")
    assert wrong == []


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_a_link_of_a_page_outside_of_docs_leads_within_the_site() -> None:
    text = "[a](../docs/rollout.md#rules) [b](base/alerts.yaml) [c](https://example.org)"
    made = site_pages.relink(text, "kserve/README.md", "how-to/kserve.md")
    assert made == "[a](../rollout.md#rules) b [c](https://example.org)"
