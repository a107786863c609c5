"""The files and folders that docs/architecture.md names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")


def test_every_file_of_the_page_exists() -> None:
    """A name without its folder is the name of a file in one of the rooms."""
    named = set(re.findall(r"`([\w/]+\.(?:py|yaml))`", PAGE))
    assert len(named) > 40
    assert [n for n in named if not (ROOT / n).is_file() and not any(r.glob(f"**/{n}") for r in ROOMS)] == []


def test_every_folder_of_the_page_exists() -> None:
    named = set(re.findall(r"`([\w/]+)/`", PAGE))
    assert len(named) > 20
    assert [n for n in named if not (ROOT / n).is_dir() and not any(r.glob(f"**/{n}") for r in ROOMS)] == []
