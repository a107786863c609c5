"""A digest of the code and the libraries that the result of a trial depends on."""

import ast
import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("training.tuning.trial", "training.tuning.space")
"""The modules of a trial; it also depends on what they import."""
ROOMS = ("training", "model", "handlers", "features")
"""Rooms whose imports are followed. The digest of a study's name covers the rows separately."""
LIBRARIES = ("torch", "pytorch-lightning", "optuna", "scikit-learn", "numpy", "scipy", "pandas", "tabm",
             "rtdl_num_embeddings")  # fmt: skip


@cache
def code_of_a_trial() -> str:
    """sha256 over the modules that a trial imports from ROOMS, and over the versions of LIBRARIES."""
    digest = hashlib.sha256()
    for module in sorted(imported(FIRST)):
        digest.update(module.encode() + b"\0" + _file(module).read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {_version(library)}\n".encode())
    return digest.hexdigest()


def imported(first: tuple[str, ...]) -> set[str]:
    """The modules in `first` and those of ROOMS that they import, directly or indirectly."""
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
