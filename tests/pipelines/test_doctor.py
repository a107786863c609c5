"""`churn doctor`: each planted fault is named with the command that mends it, and nothing is changed."""

import json
import shlex
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_deploy import HELD, PROGRAM, pack, report_of

from churn.cli import main
from churn.settings import Settings, load_settings
from data.ingest import ingest
from monitoring.findings import Checked, Monitored
from monitoring.stored import MonitorStore
from pipelines.doctor import machine, models, secret_files, stores
from pipelines.doctor.check import Check, Installation, Named, Result, State, ok
from pipelines.doctor.checks import CHECKS
from pipelines.doctor.examination import examine, is_broken
from pipelines.served import Served

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A workspace with the records of CDNOW and an archive; each test mends what it breaks."""
    made = load_settings(
        overrides=[f"workspace={tmp_path_factory.mktemp('doctor') / 'ws'}", "gateway.port=0"]
    )
    ingest(made.data, made.files, NOW)
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": []}
    pack(made, gates, spec=made.features.contract(), online="sqlite")
    return made


def checked(check: Check, settings: Settings) -> Result:
    (one,) = examine(Installation(settings, lambda: NOW), [Named("it", check)])
    return one.result


def changed(settings: Settings, section: str, **values: object) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_sound_workspace_has_nothing_broken_and_stays_as_it_is(settings: Settings) -> None:
    before = files_below(settings.files.root)
    live = Installation(settings, lambda: datetime.now(UTC))
    found = {one.name: one.result for one in examine(live, CHECKS)}
    assert {name: result for name, result in found.items() if result.state is State.BROKEN} == {}
    assert all(result.remedy for result in found.values() if result.state is State.WARNING)
    assert "69,659 rows" in found["records"].detail
    assert found["archive"].state is State.OK
    assert files_below(settings.files.root) == before


def test_an_empty_machine_is_no_fault_and_gets_no_workspace(tmp_path: Path) -> None:
    empty = load_settings(overrides=[f"workspace={tmp_path / 'none'}", "gateway.port=0"])
    found = list(examine(Installation(empty, lambda: datetime.now(UTC)), CHECKS))
    assert not is_broken(found), found
    assert not (tmp_path / "none").exists()


def test_an_exposed_key_is_mended_by_the_command_that_is_shown(settings: Settings) -> None:
    key = settings.files.mask_key
    key.chmod(0o644)
    try:
        assert checked(secret_files.modes, settings).state is State.BROKEN
        result = checked(secret_files.mask_key, settings)
        assert result.state is State.BROKEN and "chmod 600" in result.remedy
        remedy = checked(secret_files.modes, settings).remedy
        subprocess.run(shlex.split(remedy.partition(";")[0]), check=True)
        assert checked(secret_files.modes, settings).state is State.OK
        assert checked(secret_files.mask_key, settings).state is State.OK
    finally:
        key.chmod(0o600)


def test_a_lost_mask_key_is_named_and_no_other_one_is_made(settings: Settings, tmp_path: Path) -> None:
    key, away = settings.files.mask_key, tmp_path / "mask.key"
    key.rename(away)
    try:
        result = checked(secret_files.mask_key, settings)
        assert result.state is State.BROKEN and "missing" in result.detail
        assert not key.exists()
    finally:
        away.rename(key)


def test_another_mask_key_is_not_taken_for_the_one_of_the_records(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.data.mask_key_env, "another key that has at least 32 bytes")
    result = checked(secret_files.mask_key, settings)
    assert result.state is State.BROKEN and "not the one that masked" in result.detail
    assert "another key" not in result.detail + result.remedy


@pytest.mark.parametrize(
    ("check", "place"),
    [
        (stores.records, lambda s: next(s.files.records.glob("*.parquet"))),
        (models.archive, lambda s: next(s.files.model_store.glob("*.mar"))),
    ],
)
def test_one_changed_byte_of_records_or_archive_is_found(
    settings: Settings, check: Check, place: Callable[[Settings], Path]
) -> None:
    assert checked(check, settings).state is State.OK
    file = place(settings)
    sound = file.read_bytes()
    try:
        file.write_bytes(sound[:1000] + bytes([sound[1000] ^ 1]) + sound[1001:])
        assert checked(check, settings).state is State.BROKEN
    finally:
        file.write_bytes(sound)


def test_a_taken_port_is_named_with_its_setting(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = checked(models.ports, changed(settings, "gateway", port=port))
        assert result.state is State.BROKEN and f"gateway.port {port}" in result.detail
    assert checked(models.ports, changed(settings, "gateway", port=port)).state is State.OK


def test_a_database_that_refuses_and_a_server_that_is_silent_end_in_time_without_a_password(
    settings: Settings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = changed(settings, "rollout", database=f"postgresql+psycopg://ada:secret@127.0.0.1:{port}/churn")
    result = checked(stores.rollouts, away)
    assert result.state is State.BROKEN and f"127.0.0.1:{port}" in result.detail
    assert "secret" not in result.detail + result.remedy
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        waiting = changed(settings, "training", tracking_uri=uri)
        named = Named("registry", stores.registry, timeout_s=1.5)
        (one,) = examine(Installation(waiting, lambda: NOW), [named])
    assert one.result.state is State.BROKEN and "1.5 s" in one.result.detail


def test_a_stable_model_that_the_registry_does_not_have_as_champion_is_a_warning(settings: Settings) -> None:
    Served(settings, "ada", NOW)()
    result = checked(models.champion, settings)
    assert result.state is State.WARNING and "no champion" in result.detail


def test_a_monitor_that_has_not_run_for_long_is_a_warning(settings: Settings) -> None:
    store = MonitorStore(settings.rollout.database)
    days = settings.monitoring.every_days
    for age, state in ((3 * days, State.WARNING), (days, State.OK)):
        at = NOW - timedelta(days=age)
        model = settings.serving.model_name
        store.save(Monitored(model, at, at - timedelta(days=days), "v1", Checked(), "d" * 64), NOW)
        assert checked(models.checks, settings).state is state


def test_a_package_that_is_not_the_tested_one_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "constraints.txt").write_text("duckdb==0.0.1\n")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    result = checked(machine.packages, settings)
    assert result.state is State.WARNING and "duckdb" in result.detail and result.remedy == "make install"


def test_a_clock_that_is_wrong_by_more_than_half_a_lease_breaks_leases(settings: Settings) -> None:
    assert checked(machine.clock, settings).state is State.BROKEN  # NOW is months from the file system's
    live = Installation(settings, lambda: datetime.now(UTC))
    assert machine.clock(live).state is State.OK


def test_an_error_of_a_check_is_a_result_and_later_checks_run(settings: Settings) -> None:
    def fails(installation: Installation) -> Result:
        raise ZeroDivisionError("by zero")

    checks = [Named("fails", fails), Named("holds", lambda installation: ok("fine"))]
    found = list(examine(Installation(settings, lambda: NOW), checks))
    assert [one.result.state for one in found] == [State.BROKEN, State.OK]


def test_the_command_prints_json_and_ends_with_1_when_something_is_broken(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    root = settings.files.root
    key = settings.files.mask_key
    words = ["doctor", "--json", "--set", f"workspace={root}", "--set", "gateway.port=0"]
    assert main(words) == 0
    capsys.readouterr()
    key.chmod(0o644)
    try:
        assert main(words) == 1
    finally:
        key.chmod(0o600)
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["mask key"]["state"] == "broken" and found["mask key"]["remedy"]
    assert set(found) == {named.name for named in CHECKS}
