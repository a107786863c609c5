"""Which code and which libraries decide the result of a trial, as one digest."""

import ast
import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("training.tuning.trial", "training.tuning.space")
"""A trial begins here; what these modules import decides it too."""
ROOMS = ("training", "model", "handlers", "features")
"""Rooms whose modules are followed. Rows, and the configs of data, are in the study's name themselves."""
LIBRARIES = ("torch", "pytorch-lightning", "optuna", "scikit-learn", "numpy", "scipy", "pandas", "tabm",
             "rtdl_num_embeddings")  # fmt: skip


@cache
def code_of_a_trial() -> str:
    """sha256 of the modules that a trial imports from ROOMS, and of the versions of LIBRARIES."""
    digest = hashlib.sha256()
    for module in sorted(imported(FIRST)):
        digest.update(module.encode() + b"\0" + _file(module).read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {_version(library)}\n".encode())
    return digest.hexdigest()


def imported(first: tuple[str, ...]) -> set[str]:
    """The modules of ROOMS that `first` import, directly or through others, and `first` themselves."""
    found: set[str] = set()
    waiting = list(first)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports(module)
    return found


def _imports(module: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # a name that is imported from a package may be a module of it
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] in ROOMS and _file(name).is_file()]


def _file(module: str) -> Path:
    place = ROOT.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
