"""Which test files `pytest --fast` runs, and the order of files: see tests/servers_and_training.txt."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LIST = TESTS / "servers_and_training.txt"
PLACES = {
    TESTS / line: place
    for place, line in enumerate(LIST.read_text().splitlines())
    if line and not line.startswith("#")
}
"""Listed files and folders -> their rank."""


def is_fast(path: Path) -> bool:
    """Whether a test file or a folder of tests has neither servers nor training."""
    return path not in PLACES


def place_in_run(path: Path) -> int:
    """The rank by which a file is run: the files of the list in its order, then all others."""
    return min((PLACES[one] for one in (path, path.parent) if one in PLACES), default=len(PLACES) + 10)
