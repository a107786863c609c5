"""Models are trained again from what their runs recorded, after data and models have changed."""

import json
from pathlib import Path

import pytest

from churn.cli import main
from data.records.versions import versions
from pipelines.reproduce.reproduce import workspace_of
from support.retraining_runs import Shop, finished, make_log
from training.registry.model_registry import Registry


def reproduced(
    shop: Shop, version: str, capsys: pytest.CaptureFixture[str], code: int = 0
) -> dict[str, object]:
    capsys.readouterr()
    assert main(["reproduce", version, "--json", *shop.flags]) == code
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_model_is_reproduced_after_three_retrainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, "data.keep_versions=9")
    registry = Registry(shop.settings.training)
    before = {path: path.stat().st_mtime_ns for path in shop.settings.files.training.iterdir()}
    for until in ("2025-02-01", "2025-03-01", "2025-04-01"):
        make_log(shop.log, until)
        finished(shop.force())
        shop.end_rollout()
    numbers = sorted(version.number for version in registry.versions())
    assert numbers == ["1", "2", "3", "4"] and len(versions(shop.settings.files)) == 4

    for number in ("1", "3"):
        found = reproduced(shop, number, capsys)
        expected = registry.version(number).tags
        assert found["holds"] and found["found"] == found["expected"] == expected["program_sha256"]
        assert found["data_sha256"] == expected["data_sha256"]
    programs = [registry.version(number).tags["program_sha256"] for number in ("1", "4")]
    assert programs[0] != programs[1], "equal programs would prove nothing"
    assert {path: path.stat().st_mtime_ns for path in shop.settings.files.training.iterdir()} == before
    assert not workspace_of(shop.settings.files, "1").training.exists(), "rows of customers remain"
    assert len(registry.versions()) == 4, "nothing is registered"


@pytest.mark.slow
def test_records_that_the_workspace_has_no_more_come_from_the_data_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, "data.keep_versions=1", f"data.store={tmp_path / 'store'}")
    wanted = Registry(shop.settings.training).version("1").tags["data_sha256"]
    assert main(["ingest", *shop.flags]) == 0  # the log has grown, and one version is kept
    assert [version.sha256 == wanted for version in versions(shop.settings.files)] == [False]

    capsys.readouterr()
    assert main(["reproduce", "1", *shop.flags, "--set", "data.store=null"]) == 2
    assert f"data version {wanted}: not there" in capsys.readouterr().err
    assert main(["reproduce", "nine", *shop.flags]) == 2
    assert "VERSION: nine is not registered" in capsys.readouterr().err
    assert reproduced(shop, "1", capsys)["holds"]
