"""The folder of a run: one for each fencing token, so that a process that was replaced changes no file of the
process that replaced it."""

import os
import shutil
from pathlib import Path

from core.workspace import RunWorkspace, Workspace
from rollout.database.fencing import Fence

REMAINS = ("gates", "training-window.json", "tuned.json", "newest.json", "steps.json")
"""What is stored of a run that has ended: no rows of customers."""


def open_folder(main: Workspace, fence: Fence) -> RunWorkspace:
    """The folder of this token. It begins as hard links to that of the token before, whose finished steps
    count as done: steps replace files and do not change them."""
    own = folder_of(main, fence.run) / str(fence.token)
    if not own.exists():
        before = [int(path.name) for path in own.parent.glob("[0-9]*") if path.name.isdigit()]
        partial = own.with_name(f".{own.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        earlier = [token for token in before if token < fence.token]
        if earlier:
            shutil.copytree(
                own.with_name(str(max(earlier))), partial, copy_function=_link, symlinks=True,
                ignore=shutil.ignore_patterns("*.partial", ".*"),
            )  # fmt: skip
        else:
            partial.mkdir(parents=True)
        partial.rename(own)
    return RunWorkspace(main.root, own)


def close_folder(main: Workspace, run: str) -> None:
    """After the end of a run: its reports remain, data and training rows are removed."""
    folders = [path for path in folder_of(main, run).iterdir() if path.is_dir() and path.name.isdigit()]
    for folder in folders:
        newest = folder.name == str(max(int(path.name) for path in folders))
        for path in [folder] if not newest else folder.iterdir():
            if path.name in REMAINS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def folder_of(main: Workspace, run: str) -> Path:
    return main.retraining / run


def _link(source: str, target: str) -> str:
    os.link(source, target)
    return target
