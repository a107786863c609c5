"""Data, features, training rows and fit of a registered version once more, and both programs compared."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import DataError
from core.workspace import Workspace, link_version, write_atomically
from data.records.remote import fetch
from data.records.versions import find
from pipelines.code import git_commit
from pipelines.context import Context, Stages
from pipelines.reproduce.recorded import Recorded
from pipelines.steps.settings import training_rows
from training.learn.resolved import FitSettings
from training.release.environment import requirements

SHOWN = 5
"""Packages that are named when many differ."""


@dataclass(frozen=True)
class Reproduction:
    """The program of a version, and the one that the same data and settings give here."""

    number: str
    data_sha256: str
    rows: int
    """Training rows, test rows included."""
    expected: str
    found: str
    """`expected` and `found`: sha256 of the program, model.pt2."""
    differences: tuple[str, ...]
    """What else is not as it was: the code, the packages. It may explain another program."""

    @property
    def holds(self) -> bool:
        """Whether both programs are equal to the bit."""
        return self.expected == self.found


def workspace_of(main: Workspace, number: str) -> Workspace:
    """The folder in which a version is trained again."""
    return Workspace(main.root / "reproduced" / number)


def reproduce(context: Context, recorded: Recorded) -> Reproduction:
    """Trains in `workspace_of(...)`, and leaves the data, the stores and the registry of the main workspace
    as they are.

    Raises DataError if the version of the data is neither in the workspace nor in `data.store`.
    """
    from features.build import build_features
    from features.history import training_set
    from features.store import apply
    from training.train import train

    main = context.settings.files
    files = workspace_of(main, recorded.version.number)
    _empty(files)
    folder = _records(context, recorded.data_sha256)
    link_version(folder, files.data)
    shape = json.loads(files.manifest.read_text(encoding="utf-8"))["shape"]
    build_features(recorded.spec, files, progress=context.progress)
    apply(recorded.spec, files)
    training_set(recorded.spec, files, context.progress).to_parquet(files.training_set, index=False)
    if recorded.window is not None:
        write_atomically(files.training_window, json.dumps(recorded.window))
    rows = training_rows(Context(context.settings, context.as_of, context.progress, place=files))
    train(rows, FitSettings(shape, recorded.spec, recorded.model, recorded.training), files, context.progress)
    return Reproduction(
        recorded.version.number,
        recorded.data_sha256,
        len(rows),
        recorded.version.tags["program_sha256"],
        hashlib.sha256((files.training / "model.pt2").read_bytes()).hexdigest(),
        differences(recorded, git_commit(), requirements().split()),
    )


def _records(context: Context, sha256: str) -> Path:
    """The version in the workspace, or else from `data.store`."""
    config, main = context.settings.data, context.settings.files
    try:
        return find(main, sha256)
    except DataError:
        if config.store is None:
            raise
    context.progress("fetching the records from data.store")
    return fetch(config, main, sha256)


def differences(recorded: Recorded, commit: str, packages: Sequence[str]) -> tuple[str, ...]:
    """What of code and packages is not as in the run."""
    found = []
    before = recorded.version.tags.get("git_sha", "unknown")
    if before != commit or before.endswith("-dirty"):
        found.append(f"code: commit {before} then, {commit} now")
    changed = sorted(recorded.requirements ^ set(packages))
    if changed:
        names = sorted({line.partition("==")[0] for line in changed})
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        found.append(f"packages: {', '.join(names[:SHOWN])}{more}")
    return tuple(found)


def remove(settings: Stages, number: str) -> None:
    """Removes what `reproduce` wrote: it contains rows of customers."""
    shutil.rmtree(workspace_of(settings.files, number).root, ignore_errors=True)


def _empty(files: Workspace) -> None:
    """Removes the results of an earlier call. The lock of the caller is in the same folder and stays."""
    for path in files.root.iterdir() if files.root.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not path.name.startswith(files.lock.name):
            path.unlink()
