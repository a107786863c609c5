"""What the tests' own settings do: listed skips, the fast selection."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.fast import PLACES, is_fast, place_in_run
from support.skips import LIST, VARIABLE, allowed_skips

TESTS = Path(__file__).resolve().parents[1]
CONFTEST = """
from support.skips import fail_unlisted
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    fail_unlisted(report)
    return report

@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    fail_unlisted(report)
    return report
"""


@pytest.mark.parametrize(
    ("content", "variable", "code"),
    [
        ("def test_one(): pytest.skip('a program is missing')", "", 0),
        ("def test_one(): pytest.skip('a program is missing')", "listed", 1),
        ("pytest.importorskip('not_there', reason='a library is missing')", "listed", 2),
        ("def test_one(): pytest.xfail('known')", "listed", 0),
        ("def test_one(): pass", "listed", 0),
    ],
    ids=["not enforced", "a test", "a whole file", "an expected failure", "no skip"],
)
def test_a_skip_that_is_not_listed_fails(tmp_path: Path, content: str, variable: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_one.py").write_text(f"import pytest\n{content}\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": f"{TESTS}", VARIABLE: variable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert ("this skip is not listed in tests/allowed_skips.yaml" in done.stdout) == (code != 0)


def test_the_tests_of_listed_skips_exist() -> None:
    for tests, reason in allowed_skips():
        file, _, name = tests.partition("::")
        assert any(TESTS.parent.glob(file)), f"{LIST.name}: {tests}"
        assert name and reason


def test_listed_files_exist_and_are_not_fast() -> None:
    for path in PLACES:
        assert path.exists(), path
        assert not is_fast(path)
    assert is_fast(TESTS / "data" / "test_data_mask.py")


def test_the_longest_files_come_first() -> None:
    first, *_, last = PLACES
    assert place_in_run(first) < place_in_run(last) < place_in_run(TESTS / "data" / "test_data_mask.py")
    assert place_in_run(TESTS / "rollout" / "drills" / "test_drills.py") < place_in_run(last)
