"""Every command in the documents is one: its arguments are read by the real parser, or a test runs it."""

import argparse
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from churn import cli
from churn.settings import load_settings
from support.documents import PAGES, REPOSITORY, Block, blocks, prose
from support.rollout_evidence import arm, seen

BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
TARGETS = {
    target
    for file in ("Makefile", "deploy/deploy.mk")
    for target in re.findall(r"^([a-z-]+):", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE)
}
TUTORIAL = "run by: tests/docs/test_tutorial.py"


def test_every_block_names_its_language() -> None:
    assert [block.where for block in BLOCKS if not block.language] == []


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.where)
def test_the_commands_of_a_block_exist(block: Block) -> None:
    assert not block.note or block.note.startswith((TUTORIAL, "not run: ")), block.note
    for line in block.lines:
        words = shlex.split(line, comments=True)
        if words[0] == "churn":
            _check_churn(words[1:])
        elif words[0] == "make":
            assert set(words[1:2]) <= TARGETS, line
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), line
        elif words[0] == "python":
            assert (REPOSITORY / words[1]).is_file(), line
        else:
            assert block.note, f"{line}: nothing checks it; add `<!-- not run: REASON -->` above the block"


def _check_churn(words: list[str]) -> None:
    arguments = cli.parser().parse_args(words)
    profile = getattr(arguments, "profile", "local")
    later = ("overrides_of_group", "overrides_of_command")
    overrides = [*arguments.overrides, *(one for name in later for one in getattr(arguments, name, ()))]
    if profile == "local":  # others need variables of the environment
        load_settings(profile, [], overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_within_the_text_exist(page: Path) -> None:
    """The command and its options. `make bench-...` names a group of targets."""
    for text in re.findall(r"`(churn [^`]+)`", prose(page)):
        words = text.split()[1:]
        parser = cli.parser()
        while words and words[0] in (choices := _choices(parser)):
            parser = choices[words.pop(0)]
        assert parser.prog != "churn" or words[0].startswith(("-", "...")), text
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert set(options) <= set(parser._option_string_actions), text
    for target in re.findall(r"`make ([a-z][a-z-]*)", prose(page)):
        assert target in TARGETS or target.endswith("-"), target


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: below for choices in groups for name, below in choices.items()}


def test_the_rule_of_the_how_to_page_judges() -> None:
    page = REPOSITORY / "docs" / "how-to" / "own-rule.md"
    (rule,) = [block.text for block in blocks(page) if block.language == "python"]
    names: dict[str, Any] = {"__name__": "scored_customers"}
    exec(rule, names)  # noqa: S102
    judge = names["ScoredCustomersRule"](names["ScoredCustomers"](min_customers=50)).judge
    answers = [judge(seen(arm(), arm(customers=customers)), 0.01).answer for customers in (49, 50)]
    assert answers == ["not_yet", "advance"]
