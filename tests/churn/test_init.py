"""`churn init` on ugly files: the overlay is what a careful person would write, without false doubts."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from churn.cli import main
from churn.init.overlay import render
from churn.init.propose import propose
from churn.settings import load_settings
from core.errors import ConfigError, DataError
from support.init_runs import run_to_a_prediction
from support.ugly_files import MAKERS, Expected, bank, either_way

SPEC = load_settings().features


def proposed(file: Path, folder: Path, answers: dict[str, str] | None = None) -> tuple[str, Any, set[str]]:
    """The overlay as text and as a tree, which the settings accept, and the keys of its doubts."""
    proposal = propose(str(file), SPEC, answers or {})
    text = render(proposal)
    out = folder / "overlay.yaml"
    out.write_text(text, encoding="utf-8")
    settings = load_settings("local", [out])
    assert settings.data.shape == proposal.shape
    for doubt in proposal.notes.doubts:
        assert f"DOUBT {doubt.key}:" in text
    return text, yaml.safe_load(text), {doubt.key for doubt in proposal.notes.doubts}


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_overlay_of_an_ugly_file(maker: Any, tmp_path: Path) -> None:
    file, expected = maker(tmp_path)
    _, overlay, doubts = proposed(file, tmp_path)
    agrees(overlay, expected)
    assert doubts <= expected.doubts, f"false doubts {doubts - expected.doubts}"


@pytest.mark.slow
@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_ugly_file_ends_in_a_served_prediction(maker: Any, tmp_path: Path) -> None:
    run_to_a_prediction(maker(tmp_path)[0], tmp_path)


def test_answers_decide_doubts(tmp_path: Path) -> None:
    file, _ = either_way(tmp_path)
    _, overlay, doubts = proposed(file, tmp_path, {"dates": "day_first", "duplicates": "keep"})
    assert overlay["data"]["source"]["dates"] == "day_first"
    assert not doubts
    with pytest.raises(ConfigError, match="no such question"):
        proposed(file, tmp_path, {"colour": "red"})


def test_command_writes_once_and_names_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = bank(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(file)]) == 2  # without a terminal, guesses need --yes
    assert "observed_at" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.yaml"))
    assert main(["init", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["data"]["shape"] == "labelled"
    assert not list(tmp_path.glob("*.yaml"))
    assert main(["init", str(file), "--yes"]) == 0
    assert "churn run --config bank.churn.yaml" in capsys.readouterr().out
    written = (tmp_path / "bank.churn.yaml").read_text()
    assert written == printed
    assert main(["init", str(file), "--yes"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["init", str(file), "--yes", "--force", "--answer", "observed_at=2024-05-01"]) == 0
    assert "2024-05-01T00:00:00Z" in (tmp_path / "bank.churn.yaml").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"just one column\nvalue\n", "delimiter"),
        (b'{"a": 1}\n', "JSON"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old kind"),
        (b"id,total,total\n1,2,3\n4,5,6\n", "two columns"),
        (b"name,colour\nx,red\ny,blue\nz,red\n", "shows who left"),
    ],
)
def test_what_is_not_a_table_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        propose(str(tmp_path / "file.csv"), SPEC, {})
    assert "\n" not in str(refused.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        propose(str(tmp_path / "nowhere.csv"), SPEC, {})


def test_too_short_a_log_is_refused_for_its_length(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=40, freq="D")
    rows = [f"{c},{day:%Y-%m-%d},{c + 1}.5" for c in range(60) for day in days[c % 7 :: 5]]
    (tmp_path / "log.csv").write_text("customer_id,order_date,amount\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="40 days, too short"):
        propose(str(tmp_path / "log.csv"), SPEC, {})


def agrees(overlay: dict[str, Any], expected: Expected) -> None:
    data = overlay["data"]
    assert data["shape"] == expected.shape
    for key, value in expected.source.items():
        if isinstance(value, dict):
            found = data["source"].get(key, {})
            assert {k: found.get(k) for k in value} == value, key
        else:
            assert data["source"].get(key) == value, key
    features = {f["name"]: f for f in overlay["features"].get("features", [])}
    assert {name: features.get(name, {}).get("dtype") for name in expected.features} == expected.features
    read = {f.get("sql", f'"{name}"') for name, f in features.items()}
    for column in expected.absent:
        assert not any(f'"{column}"' in sql for sql in read), column
