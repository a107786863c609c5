"""docs/architecture.md leads to files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = (
    "churn",
    "configs",
    "data",
    "features",
    "handlers",
    "model",
    "pipelines",
    "rollout",
    "serving",
    "training",
)


def test_every_file_of_the_page_is_there() -> None:
    """A name without a folder is that of a file somewhere in a room."""
    named = set(re.findall(r"`([\w/]+\.(?:py|yaml))`", PAGE))
    assert len(named) > 40
    missing = [name for name in named if not any(ROOT.glob(f"{room}/**/{name}") for room in ROOMS)]
    missing = [name for name in missing if not (ROOT / name).is_file()]
    assert missing == []


def test_every_folder_of_the_page_is_there() -> None:
    named = set(re.findall(r"`([\w/]+)/`", PAGE))
    assert len(named) > 20
    found = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*")}
    assert [
        n
        for n in named
        if not any(f == n or f.endswith("/" + n) for f in found | set(ROOMS) | {"monitoring"})
    ] == []
