"""The help describes commands that exist."""

import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import churn.commands
from churn.cli import main, parser
from churn.command import Command
from churn.commands import COMMANDS
from core.layers import CONFIGS

REPOSITORY = CONFIGS.parent
EXAMPLES = {example for command in COMMANDS for example in command.examples}


@pytest.mark.parametrize("line", sorted(EXAMPLES))
def test_every_example_of_the_help_is_parsed(line: str) -> None:
    arguments = parser().parse_args(shlex.split(line)[1:])
    assert callable(arguments.act)


def test_every_declared_command_is_listed() -> None:
    found = pkgutil.walk_packages(churn.commands.__path__, "churn.commands.")
    modules = [importlib.import_module(module.name) for module in found]
    declared = [value for module in modules for value in vars(module).values() if isinstance(value, Command)]
    assert {command.name for command in declared} == {command.name for command in COMMANDS}


def test_settings_are_accepted_before_the_command_and_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("training: {batch_size: 77}\n")
    words = ["--profile", "local", "--config", str(more), "--set", "training.epochs=3", "config", "show"]
    assert main([*words, "--set", "tuning.trials=4"]) == 0
    shown = capsys.readouterr().out
    assert all(line in shown for line in ('"batch_size": 77', '"epochs": 3', '"trials": 4'))
    assert main(["--profile", "unknown", "config", "show"]) == 2
    assert main(["--profile", "unknown", "config", "show", "--profile", "local"]) == 0


def test_every_command_has_help_and_examples() -> None:
    assert all(command.help and command.examples for command in COMMANDS)
    assert all(f"churn {command.name}" in " ".join(command.examples) for command in COMMANDS)


def test_help_imports_no_heavy_library() -> None:
    program = (
        "import sys; from churn.cli import parser; parser(); print([m for m in sys.modules if '.' not in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not {"torch", "feast", "mlflow", "pandas", "optuna", "pydantic", "sqlglot"} & set(
        re.findall(r"'(\w+)'", done.stdout)
    )
