"""A reader's files stay, whatever replaces the version that it began with."""

from pathlib import Path

import pytest

from core.workspace import link_version, replaced_directory


def version(current: Path, text: str) -> None:
    with replaced_directory(current) as fresh:
        (fresh / "rows").write_text(text)
        (fresh / "parts").mkdir()
        (fresh / "parts" / "0").write_text(text)


def test_what_was_pinned_outlives_its_version(tmp_path: Path) -> None:
    current, own = tmp_path / "current", tmp_path / "own"
    version(current, "old")
    link_version(current, own)
    version(current, "new")
    assert [(own / name).read_text() for name in ("rows", "parts/0")] == ["old", "old"]


def test_a_version_that_goes_while_it_is_linked_is_left_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    current, own = tmp_path / "current", tmp_path / "own"
    version(current, "old")
    link, calls = os.link, []

    def link_late(source: str, target: str) -> None:
        if not calls:
            version(current, "new")
        calls.append(source)
        link(source, target)

    monkeypatch.setattr("os.link", link_late)
    link_version(current, own)
    assert [(own / name).read_text() for name in ("rows", "parts/0")] == ["new", "new"]


def test_nothing_to_pin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_version(tmp_path / "none", tmp_path / "own")
