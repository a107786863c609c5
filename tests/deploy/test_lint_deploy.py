"""`make lint-deploy` names what it skipped and why, and fails where a check found something."""

import pytest

from deploy.lint import __main__ as lint
from deploy.lint.tool import Missing, find


def test_a_tool_that_is_not_here_is_named_with_its_remedy() -> None:
    with pytest.raises(Missing, match="no-such-program is not here: install it"):
        find("no-such-program", "install it")


def test_a_skipped_check_is_shown_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> list[str]:
        raise Missing("deck is not here: apt-get install deck")

    monkeypatch.setattr(lint, "CHECKS", {"kong": missing, "alb": lambda: []})
    assert lint.main([]) == 0
    assert "kong: skipped: deck is not here: apt-get install deck\n" in capsys.readouterr().out


def test_a_complaint_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(lint, "CHECKS", {"kong": lambda: ["services: wrong"], "alb": lambda: []})
    assert lint.main([]) == 1
    shown = capsys.readouterr().out
    assert "kong: 1 found" in shown and "  services: wrong\n" in shown and "alb: ok" in shown


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint.main(["kongg"]) == 2
    assert "no check kongg: choose from terraform" in capsys.readouterr().err
