"""A release needs one version in the tag, in pyproject.toml and in the changelog."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "release-notes"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-11-27

### Added
- Something. (#1)

## [1.2.2] - 2026-01-01
- Older.
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return {
        **os.environ,
        "PYPROJECT": str(tmp_path / "pyproject.toml"),
        "CHANGELOG": str(tmp_path / "CHANGELOG.md"),
    }


def noted(tag: str, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, tag], env=files, capture_output=True, text=True, check=False)


def test_the_notes_are_the_section_of_the_version(files: dict[str, str]) -> None:
    done = noted("v1.2.3", files)
    assert done.returncode == 0
    assert done.stdout.strip() == "### Added\n- Something. (#1)"


def test_a_tag_of_another_version_is_refused(files: dict[str, str]) -> None:
    done = noted("v1.2.4", files)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected v1.2.3 as in pyproject.toml, found 'v1.2.4'" in done.stderr


def test_a_version_without_notes_is_refused(files: dict[str, str]) -> None:
    changelog = Path(files["CHANGELOG"])
    changelog.write_text(CHANGELOG.replace("[1.2.3]", "[1.2.30]"))
    done = noted("v1.2.3", files)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected notes under '## [1.2.3] - DATE'" in done.stderr
