"""Runs steps in order and skips those whose results are up to date. Nothing here is specific to churn."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.workspace import write_atomically
from pipelines.code import ROOT
from pipelines.context import Context


@dataclass(frozen=True)
class Step:
    """One step of the loop and everything that its result depends on."""

    name: str
    title: str
    act: Callable[[Context], None]
    depends: Callable[[Context], Any]
    """What else the result depends on besides files and code, as JSON: configs, the state of a source."""
    rooms: tuple[str, ...]
    """Packages whose code determines the result."""
    reads: Callable[[Context], Sequence[Path]]
    """Small files of earlier steps that represent all of their output, since they contain its hashes."""
    writes: Callable[[Context], Sequence[Path]]
    is_intact: Callable[[Context], bool] = lambda context: True
    """Whether the step's result outside of files (in a store, a database, an archive) still exists. Called
    only if nothing else requires that the step runs again."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version determines the result too."""


@dataclass(frozen=True)
class Outcome:
    """A step that was run or skipped, and its seconds; of a skipped step, those of its last run."""

    step: str
    seconds: float
    skipped: bool


def run_steps(
    steps: Sequence[Step],
    context: Context,
    force: bool = False,
    started: Callable[[Step], None] = lambda step: None,
    ended: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Runs each step whose inputs have changed since its last success, or all of them with `force`.

    If a step fails, the records of the others remain, so the next run begins with it.
    """
    ledger = context.files.steps
    outcomes = []
    for step in steps:
        started(step)
        clock = time.perf_counter()
        before = _fingerprint(step, context)
        record = _read(ledger).get(step.name, {})
        skip = not force and _holds(record, before, step, context)
        if not skip:
            # The record is removed first, so that a step that is killed does not count as done.
            _write(ledger, {key: value for key, value in _read(ledger).items() if key != step.name})
            step.act(context)
            record = {
                "fingerprint": before,
                "written": _written(step, context),
                "seconds": round(time.perf_counter() - clock, 3),
            }
            _write(ledger, {**_read(ledger), step.name: record})
        outcome = Outcome(step.name, record["seconds"] if skip else time.perf_counter() - clock, skip)
        outcomes.append(outcome)
        ended(outcome)
    return outcomes


def is_done(step: Step, context: Context) -> bool:
    """Whether a run would skip the step."""
    record = _read(context.files.steps).get(step.name, {})
    return _holds(record, _fingerprint(step, context), step, context)


def accept(step: Step, context: Context) -> None:
    """Records the current files as the step's result, after another command has added to them."""
    ledger = context.files.steps
    record = {"fingerprint": _fingerprint(step, context), "written": _written(step, context), "seconds": 0.0}
    _write(ledger, {**_read(ledger), step.name: record})


def _holds(record: dict[str, Any], fingerprint: str, step: Step, context: Context) -> bool:
    return (
        record.get("fingerprint") == fingerprint
        and record.get("written") == _written(step, context)
        and step.is_intact(context)
    )


def _fingerprint(step: Step, context: Context) -> str:
    read = {_named(path, context): _digest(path) for path in step.reads(context)}
    facts = [
        step.name,
        step.depends(context),
        read,
        [_code_digest(room) for room in ("core", *step.rooms)],
        [_installed(library) for library in step.libraries],
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _named(path: Path, context: Context) -> str:
    """The path below the folder of the steps, so that a copy of the folder has the same steps done."""
    folder = context.files.steps.parent
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _written(step: Step, context: Context) -> list[str | None]:
    return [_digest(path) for path in step.writes(context)]


def _digest(path: Path) -> str | None:
    """sha256 of a small file, size and time of a large one, the digest over all files of a folder; None for a
    missing path."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        parts = [f"{file.relative_to(path)} {_digest(file)}" for file in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    if not path.is_file():
        return None
    status = path.stat()
    if status.st_size > 4_000_000:
        return f"{status.st_size}:{status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _installed(library: str) -> str | None:
    """The installed version, or None."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


@cache
def _code_digest(room: str) -> str:
    digest = hashlib.sha256()
    for file in sorted((ROOT / room).rglob("*.py")):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _read(ledger: Path) -> dict[str, Any]:
    if not ledger.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(ledger.read_text(encoding="utf-8"))
    except ValueError:  # damaged: no step counts as done
        return {}
    return content


def _write(ledger: Path, content: dict[str, Any]) -> None:
    write_atomically(ledger, json.dumps(content, indent=2))
