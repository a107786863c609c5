"""The context of the image builds has every package that the project installs."""

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_every_package_is_in_the_context() -> None:
    """A package that is left out is missing only when a command of the image imports it."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert packages <= {line.removeprefix("!") for line in lines if line.startswith("!")}
