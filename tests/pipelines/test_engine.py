"""The engine with small real steps on real files."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from churn.settings import load_settings
from pipelines.context import Context
from pipelines.engine import Step, run_steps


def context_in(folder: Path) -> Context:
    return Context(
        load_settings(overrides=[f"workspace={folder}"]), datetime(2024, 1, 1, tzinfo=UTC), lambda text: None
    )


def copying_steps(folder: Path, calls: list[str], factor: dict[str, int]) -> Sequence[Step]:
    """double: in.txt -> doubled.txt; sum: doubled.txt -> sum.txt."""

    def double(context: Context) -> None:
        calls.append("double")
        (folder / "doubled.txt").write_text(str(int((folder / "in.txt").read_text()) * factor["by"]))

    def add(context: Context) -> None:
        calls.append("add")
        if factor["by"] == 13:
            raise RuntimeError("no")
        (folder / "sum.txt").write_text((folder / "doubled.txt").read_text() + "+1")

    return (
        Step(
            "double",
            "",
            double,
            lambda c: factor["by"],
            (),
            lambda c: [folder / "in.txt"],
            lambda c: [folder / "doubled.txt"],
        ),
        Step(
            "add",
            "",
            add,
            lambda c: None,
            (),
            lambda c: [folder / "doubled.txt"],
            lambda c: [folder / "sum.txt"],
        ),
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_text("2")
    return tmp_path


def test_only_what_changed_is_done_again(workspace: Path) -> None:
    calls: list[str] = []
    factor = {"by": 2}
    steps, context = copying_steps(workspace, calls, factor), context_in(workspace)

    def run(force: bool = False) -> list[str]:
        calls.clear()
        run_steps(steps, context, force)
        return list(calls)

    assert run() == ["double", "add"]
    assert run() == []
    factor["by"] = 3
    assert run() == ["double", "add"]
    (workspace / "in.txt").write_text("5")
    assert run() == ["double", "add"]
    (workspace / "sum.txt").unlink()
    assert run() == ["add"]
    (workspace / "doubled.txt").write_text("edited by hand")
    assert run() == ["double"]  # the result is the same as before, so later steps are still valid
    assert run(force=True) == ["double", "add"]


def test_a_failed_step_is_where_the_next_run_begins(workspace: Path) -> None:
    calls: list[str] = []
    factor = {"by": 13}
    steps, context = copying_steps(workspace, calls, factor), context_in(workspace)
    with pytest.raises(RuntimeError):
        run_steps(steps, context)
    assert set(json.loads((workspace / "steps.json").read_text())) == {"double"}
    calls.clear()
    with pytest.raises(RuntimeError):
        run_steps(steps, context)
    assert calls == ["add"]


def test_a_damaged_ledger_means_nothing_is_done(workspace: Path) -> None:
    calls: list[str] = []
    steps, context = copying_steps(workspace, calls, {"by": 2}), context_in(workspace)
    run_steps(steps, context)
    (workspace / "steps.json").write_text("{")
    calls.clear()
    outcomes = run_steps(steps, context)
    assert calls == ["double", "add"] and not any(outcome.skipped for outcome in outcomes)


def test_a_step_whose_result_is_gone_elsewhere_is_done_again(workspace: Path) -> None:
    calls: list[str] = []
    database = workspace / "elsewhere.db"

    def fill(context: Context) -> None:
        calls.append("fill")
        database.write_text("rows")

    fill_step = Step(
        "fill", "", fill, lambda c: None, (), lambda c: [], lambda c: [], lambda c: database.is_file()
    )
    context = context_in(workspace)
    run_steps([fill_step], context)
    run_steps([fill_step], context)
    assert calls == ["fill"]
    database.unlink()
    run_steps([fill_step], context)
    assert calls == ["fill", "fill"] and database.is_file()


def test_another_version_of_a_library_does_a_step_again(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    step = Step("fit", "", lambda c: calls.append("fit"), lambda c: None, (), lambda c: [], lambda c: [],
                libraries=("torch",))  # fmt: skip
    run_steps([step], context_in(workspace))
    run_steps([step], context_in(workspace))
    assert calls == ["fit"]
    monkeypatch.setattr("pipelines.engine.version", lambda library: f"another {library}")
    run_steps([step], context_in(workspace))
    assert calls == ["fit", "fit"]


def test_a_folder_counts_with_all_its_files(workspace: Path) -> None:
    calls: list[str] = []
    folder = workspace / "parts"

    def write(context: Context) -> None:
        calls.append("write")
        folder.mkdir(exist_ok=True)
        (folder / "a").write_text("1")
        (folder / "b").write_text("2")

    step = Step("write", "", write, lambda c: None, (), lambda c: [], lambda c: [folder])
    run_steps([step], context_in(workspace))
    run_steps([step], context_in(workspace))
    assert calls == ["write"]
    (folder / "b").unlink()
    run_steps([step], context_in(workspace))
    assert calls == ["write", "write"]
