"""The whole loop by its commands on the real log: real files, a real store, a real server.

Small settings (one member, one epoch, no trees, no study, a shorter plan of the canary) keep it short;
nothing else differs from `make run`. The run of test_labelled_loop.py has trees.
"""

import hashlib
import html
import json
import re
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest

from churn.cli import main
from churn.settings import Settings, load_settings
from data.mask import load_key
from data.records.folder import parts
from features.history import point_in_time
from features.store import open_store, serving_environment
from handlers.bundle import read_bundle
from handlers.identity import is_masked, mask
from handlers.store.opening import open_features
from model.program import Program, score
from pipelines.candidates import champion
from pipelines.live import customers_online
from pipelines.served import Served
from pipelines.trace.link import Proof
from pipelines.trace.model import find_model, training_data
from support.cdnow import cdnow_log
from training.learn.inputs import Inputs
from training.registry.model_registry import Registry

WEIGHTS = [1, 5, 25, 50, 100]
PLAN = [{"weight": 0, "mirror": True, "min_s": 4, "max_s": 120, "min_requests": 100}] + [
    {"weight": weight, "min_s": 2, "max_s": 120, "min_requests": weight} for weight in WEIGHTS
]
SMALL = [
    "tuning.trials=0",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=1",
    "training.baselines=[base_rate, logistic_regression]",
    "training.cross_validation=1",
    f"rollout.rehearsal.stages={json.dumps(PLAN)}",
    "rollout.rehearsal.watch_s=2",
    "rollout.rehearsal.requests_per_s=50",
]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [f"workspace={tmp_path_factory.mktemp('loop')}", *SMALL]


@pytest.fixture(scope="module")
def settings(overrides: list[str]) -> Settings:
    return load_settings(overrides=overrides)


def churn(*command: str, overrides: list[str]) -> int:
    return main([*command, *(word for override in overrides for word in ("--set", override))])


@pytest.fixture(scope="module")
def ran(overrides: list[str], settings: Settings) -> dict[str, Any]:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    assert churn("run", overrides=overrides) == 0
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before, "the run left a process behind"
    return record_of(settings)


def record_of(settings: Settings) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(settings.files.run_record.read_text())
    return record


def test_the_record_describes_the_run(ran: dict[str, Any], settings: Settings) -> None:
    archive = Path(ran["archive"]["path"])
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == ran["archive"]["sha256"]
    assert ran["gates"]["passed"] and set(ran["baselines"]) == {"base_rate", "logistic_regression"}
    assert ran["metrics"]["rows"] == 42_648 and ran["data"]["rows"] == 69_659
    assert ran["metrics"]["log_loss"] <= 0.437 and ran["metrics"]["auroc"] >= 0.790
    assert 0 < ran["peak_memory_bytes"] < 4 * 2**30
    assert {"ingest", "train", "serve", "report"} <= set(ran["timings_s"])


def test_a_prediction_is_traced_to_its_source_rows_and_a_changed_file_is_named(
    ran: dict[str, Any], settings: Settings, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log = pd.read_parquet(settings.files.root / "rehearsal" / "serving" / "predictions")
    known = log[log["features_at"].notna()].iloc[0]

    def traced(code: int) -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        command = ("trace", known["request_id"], "--customer", known["user_id"], "--json", "--source-ids")
        assert churn(*command, overrides=overrides) == code
        return {link["link"]: link for link in json.loads(capsys.readouterr().out)}

    links = traced(0)
    assert list(links) == [
        "prediction", "archive", "registered version", "gate report", "MLflow run", "training data",
        "features", "source rows",
    ]  # fmt: skip
    assert all(link["proofs"] for name, link in links.items() if name != "prediction")
    assert links["archive"]["facts"]["sha256"] == ran["archive"]["sha256"]
    source = links["source rows"]
    name = source["facts"]["customer (source)"]
    assert mask(name, load_key(settings.data, settings.files)) == known["user_id"]
    bought = cdnow_log()
    mine = bought[bought["customer"].astype(int) == int(name)]
    assert source["facts"]["rows"] == len(mine) == known["feature_total_purchases"]
    assert json.loads(settings.files.named_lists.read_text().splitlines()[-1])["rows"] == 1

    (part,) = parts(settings.files)
    sound = part.read_bytes()
    try:
        part.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        broken = [proof for proof in traced_proofs(settings, known) if not proof.holds]
        assert [part.name in proof.statement for proof in broken] == [True]
    finally:
        part.write_bytes(sound)


def test_the_page_of_the_loop_is_the_same_each_time_and_small(
    ran: dict[str, Any], settings: Settings, overrides: list[str], tmp_path: Path
) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        assert churn("report", "--out", str(page), "--customers", "5", overrides=overrides) == 0
    first, second = (page.read_bytes() for page in pages)
    assert first == second and len(first) < 500_000
    text = html.unescape(first.decode())
    assert ran["archive"]["version"] in text and ran["rollout"]["outcome"] in text
    assert "The 5 of " in text and re.search("(raises|lowers) the risk", text)


def traced_proofs(settings: Settings, known: Any) -> list[Proof]:
    """All that is proved about the training data of a prediction."""
    model = find_model(settings, dict(known), settings.files.root / "scratch")
    return list(training_data(settings, model).proofs)


def test_the_model_reached_all_customers_by_a_canary(ran: dict[str, Any], settings: Settings) -> None:
    trial = ran["rollout"]
    assert (trial["phase"], trial["replay"]["failed"]) == ("promoted", 0)
    assert [window["name"] for window in trial["windows"]] == [
        "shadow", *(f"{weight} %" for weight in WEIGHTS), "after",
    ]  # fmt: skip
    shadow, *split, last, _ = trial["windows"]
    assert shadow["pairs"] > 0 and shadow["largest_difference"] == 0  # no champion yet: beside itself
    assert all(window["stable"]["requests"] > window["canary"]["requests"] for window in split[:2])
    assert last["stable"]["requests"] < last["canary"]["requests"]  # a few were on their way
    assert all(window[arm]["errors"] == 0 for window in trial["windows"] for arm in ("stable", "canary"))
    assert "there is no champion yet" in trial["reason"]

    champion = Registry(settings.training).champion()
    decision = Registry(settings.training).history()[-1]
    assert champion is not None and champion.tags["archive_sha256"] == ran["archive"]["sha256"]
    assert decision.action == "promote" and trial["id"] in decision.who and decision.applied
    assert "100 % is passed" in decision.why and decision.numbers["canary_requests"] > 0


def test_the_report_tells_how_it_got_there(ran: dict[str, Any]) -> None:
    page = html.unescape(Path(ran["report"]).read_text())
    assert "The canary" in page and "Promoted" in page
    for decision in ran["rollout"]["decisions"]:
        assert decision["reason"] in page


def test_the_champion_can_be_brought_to_a_server_whatever_became_of_the_store(
    ran: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    found = champion(settings)
    assert found is not None and found.sha256 == ran["archive"]["sha256"]
    lost = [found.path.parents[1], Path(ran["archive"]["path"])]
    for path in lost:
        path.rename(tmp_path / path.name)
    try:
        messages: list[str] = []
        fetched = champion(settings, messages.append)
        assert fetched is not None and messages == ["fetching version 1 from the registry"]
        assert hashlib.sha256(fetched.path.read_bytes()).hexdigest() == found.sha256
    finally:
        for path in lost:
            (tmp_path / path.name).rename(path)


def test_the_server_gives_the_checkpoint_s_scores(ran: dict[str, Any], settings: Settings) -> None:
    names = [answer["user_id"] for answer in ran["answers"]]
    vectors = point_in_time(
        settings.features, open_store(settings.features, settings.files), entities(settings, names)
    )
    folder = settings.files.training
    inputs = Inputs.read(folder / "inputs.json")
    expected = score(Program.load(folder / "members.ckpt"), *inputs.encode(vectors.to_pandas()))
    found = [answer["churn_probability"] for answer in ran["answers"]]
    assert len(names) == 5 and {answer["status"] for answer in ran["answers"]} == {"ok"}
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_handler_reads_the_point_in_time_vector_of_1000_customers(
    ran: dict[str, Any], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(ran["archive"]["path"]) as archive:
        archive.extractall(tmp_path)
    for name, value in serving_environment(settings.features, settings.files).items():
        monkeypatch.setenv(name, value)
    snapshots = pd.read_parquet(settings.files.snapshots, columns=["user_id", "event_timestamp"])
    newest = snapshots["event_timestamp"] == latest(settings)  # who is not eligible there is not online
    known = snapshots["user_id"][newest].unique()
    names = [str(name) for name in np.random.default_rng(1).choice(known, 1000, replace=False)]
    bundle = read_bundle(tmp_path)
    online = open_features(tmp_path, bundle).read(names, latest(settings))
    offline = point_in_time(
        settings.features, open_store(settings.features, settings.files), entities(settings, names)
    )
    assert set(online.status) == {"ok"}
    for feature in bundle.inputs:
        assert online.columns[feature] == offline[feature].to_pylist(), feature


def test_no_file_names_a_customer(ran: dict[str, Any], settings: Settings) -> None:
    files = settings.files
    for table in (
        *parts(files),
        files.snapshots,
        files.labels,
        files.training_set,
        files.training / "test_scores.parquet",
    ):
        assert pd.read_parquet(table, columns=["user_id"])["user_id"].map(is_masked).all(), table
    assert all(is_masked(answer["user_id"]) for answer in ran["answers"])
    customers = {mask(str(number), load_key(settings.data, files)) for number in range(1, 23_571)}
    assert {answer["user_id"] for answer in ran["answers"]} <= customers
    assert files.mask_key.stat().st_mode & 0o777 == 0o600


def test_the_report_stands_alone(ran: dict[str, Any]) -> None:
    page = Path(ran["report"]).read_text()
    assert page.count("<svg") >= 6 and "Gates passed" in page and ran["archive"]["sha256"] in page
    # names of XML namespaces are no addresses to fetch
    fetched = re.findall(r"(?:src|href)=[\"'](?!#)[^\"']*", re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", page))
    assert fetched == []


def test_nothing_is_done_again_until_something_changes(
    ran: dict[str, Any], overrides: list[str], settings: Settings
) -> None:
    assert churn("run", overrides=overrides) == 0
    again = record_of(settings)
    assert len(again["skipped"]) == 8
    assert (again["archive"], again["answers"]) == (ran["archive"], ran["answers"])
    assert again["rollout"] == {**ran["rollout"], "unchanged": True}  # it is the champion already


def test_a_refused_model_is_reported_and_never_archived(
    ran: dict[str, Any], overrides: list[str], settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    store = sorted(settings.files.model_store.glob("*.mar"))
    strict = [*overrides, "gates.profiles.default.floors.minimum={auroc: 0.95}"]
    assert churn("run", overrides=strict) == 3
    assert "churn: the gates of profile default refuse this model: auroc 0.7" in capfd.readouterr().err
    refused = record_of(settings)
    assert refused["archive"] is None and refused["answers"] == [] and not refused["gates"]["passed"]
    assert refused["rollout"] == {"left_out": "the gates refused the model"}
    assert "Gates failed" in Path(refused["report"]).read_text()
    assert churn("package", overrides=strict) == 3
    assert sorted(settings.files.model_store.glob("*.mar")) == store


def entities(settings: Settings, names: list[str]) -> pa.Table:
    moments = pa.array([latest(settings)] * len(names), pa.timestamp("us", tz="UTC"))
    return pa.table({"user_id": names, "event_timestamp": moments})


def latest(settings: Settings) -> datetime:
    record = json.loads(settings.files.feature_manifest.read_text())
    return datetime.fromisoformat(record["latest"])


def scores_of(file: Path) -> "pd.Series[float]":
    return pd.read_parquet(file).set_index("user_id")["churn_probability"]


def test_batch_scores_are_the_server_s_to_the_bit(
    ran: dict[str, Any], settings: Settings, overrides: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    assert churn("score", "--as-of", "1998-07-01", "--out", str(out), overrides=overrides) == 0

    found = pd.read_parquet(out)
    assert len(found) == found["user_id"].nunique() == 8_332  # who is eligible of 23,570
    assert found["expected_value"].is_monotonic_decreasing
    assert found["rank"].tolist() == list(range(1, len(found) + 1))
    assert set(found["model_version"]) == {ran["archive"]["version"]}
    given = scores_of(out)
    decisions = found.set_index("user_id")["prediction"]
    for answer in ran["answers"]:
        assert given[answer["user_id"]] == answer["churn_probability"]
        assert decisions[answer["user_id"]] == answer["prediction"]


def test_parts_of_the_scores_are_merged_to_the_same_bytes(
    ran: dict[str, Any], overrides: list[str], tmp_path: Path
) -> None:
    whole, merged = tmp_path / "whole.csv", tmp_path / "merged.csv"
    assert churn("score", "--out", str(whole), "--top", "100", overrides=overrides) == 0
    for part in ("1/2", "0/2"):
        done = churn("score", "--out", str(merged), "--top", "100", "--part", part, overrides=overrides)
        assert done == 0
    assert churn("score", "--out", str(merged), "--merge", overrides=overrides) == 0
    assert merged.read_bytes() == whole.read_bytes()


def test_batch_scores_of_a_test_snapshot_are_training_s_own(
    ran: dict[str, Any], settings: Settings, overrides: list[str], tmp_path: Path
) -> None:
    judged = pd.read_parquet(settings.files.training / "test_scores.parquet")
    moment = judged["event_timestamp"].max()
    own = judged[judged["event_timestamp"] == moment].set_index("user_id")["score"]
    out = tmp_path / "scores.parquet"
    assert churn("score", "--as-of", moment.isoformat(), "--out", str(out), overrides=overrides) == 0

    assert scores_of(out).sub(own).abs().max() <= 1e-6  # the gate's own bound for program and checkpoint
    assert len(scores_of(out)) == len(own)


def test_a_moment_that_was_never_built_is_computed_and_changes_nothing(
    ran: dict[str, Any], settings: Settings, overrides: list[str], tmp_path: Path
) -> None:
    before = settings.files.features.resolve()
    out = tmp_path / "calls.csv"
    command = ("score", "--as-of", "1998-03-15", "--out", str(out), "--top", "5", "--reasons", "2")
    assert churn(*command, overrides=overrides) == 0

    found = pd.read_csv(out)
    assert len(found) == 5 and found["as_of"].str.startswith("1998-03-15").all()
    assert found["reason_1"].str.contains("the risk").all()
    assert settings.files.features.resolve() == before
    assert churn("score", "--as-of", "2050-01-01", "--out", str(out), overrides=overrides) == 2


def test_source_identifiers_are_added_with_the_mask_key(
    ran: dict[str, Any],
    settings: Settings,
    overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "calls.csv"
    command = ("score", "--out", str(out), "--top", "50", "--source-ids")
    assert churn(*command, overrides=overrides) == 0
    found = pd.read_csv(out, dtype=str)
    key = load_key(settings.data, settings.files)
    assert [mask(source_id, key) for source_id in found["source_id"]] == found["user_id"].tolist()
    assert out.stat().st_mode & 0o777 == settings.files.named_lists.stat().st_mode & 0o777 == 0o600
    line = json.loads(settings.files.named_lists.read_text().splitlines()[-1])
    assert (line["file"], line["rows"]) == (str(out), 50) and line["who"]

    monkeypatch.setenv(settings.data.mask_key_env, "another key of at least thirty-two bytes")
    assert churn(*command, overrides=overrides) == 2
    assert "masked with another key" in " ".join(capsys.readouterr().err.split())


def test_an_archive_verifies_until_it_is_changed(
    ran: dict[str, Any], overrides: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = Path(ran["archive"]["path"])
    assert churn("verify", str(archive), overrides=overrides) == 0
    assert ran["archive"]["version"] in capsys.readouterr().out

    changed = tmp_path / archive.name
    changed.write_bytes(archive.read_bytes()[:-1] + b"x")
    assert churn("verify", str(changed), overrides=overrides) == 2
    signature = archive.with_name(f"{archive.name}.sig")
    changed.with_name(f"{changed.name}.sig").write_bytes(signature.read_bytes())
    assert churn("verify", str(changed), overrides=overrides) == 2
    assert "the archive was changed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_canary_that_is_rolled_back_ends_the_run_with_its_reason(
    ran: dict[str, Any], overrides: list[str], settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same model packaged anew beside the champion, with a plan that it cannot fulfil."""
    before = Registry(settings.training).champion()
    patience = [{"weight": 0, "mirror": True, "max_s": 3, "min_requests": 10**6}, {"weight": 100, "max_s": 9}]
    impatient = [*overrides, f"rollout.rehearsal.stages={json.dumps(patience)}"]
    assert churn("gates", overrides=overrides) == 0  # another test's report is the newest
    assert churn("package", overrides=overrides) == 0
    assert churn("run", overrides=impatient) == 3

    trial, messages = record_of(settings)["rollout"], " ".join(capfd.readouterr().err.split())
    assert trial["phase"] == "rolled_back" and "no sufficient evidence within 3 s" in trial["outcome"]
    assert trial["stable"]["sha256"] == ran["archive"]["sha256"] != trial["candidate"]["sha256"]
    assert "churn: the canary of version" in messages and "no sufficient evidence within 3 s" in messages
    assert trial["replay"]["failed"] == 0
    assert Registry(settings.training).champion() == before
    served = Served(settings, "ada", datetime.now(UTC))()
    assert hashlib.sha256(served.read_bytes()).hexdigest() == ran["archive"]["sha256"]
    assert "Rolled back" in Path(record_of(settings)["report"]).read_text()


@pytest.mark.timeout(1200)
@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_what_was_deleted_is_made_anew(
    ran: dict[str, Any], overrides: list[str], settings: Settings, trained: bool
) -> None:
    """`trained`: the checkpoint is still there, and the model is not trained again."""
    assert churn("run", "--no-rollout", overrides=overrides) == 0
    before = record_of(settings)
    lost = [
        settings.files.feast / "online.db",
        settings.files.root / "mlflow.db",
        Path(before["archive"]["path"]),
    ]
    for file in lost if trained else [*lost, settings.files.training / "members.ckpt"]:
        file.unlink()
    # a process of its own: this one still has the deleted database open
    flags = [word for override in overrides for word in ("--set", override)]
    subprocess.run([sys.executable, "-m", "churn", "run", "--no-rollout", *flags], check=True, timeout=900)
    after = record_of(settings)
    kept = ["ingest", "features", "training set", "tune", *(["train"] if trained else [])]
    assert after["skipped"][: len(kept)] == kept and {"online store", "package"}.isdisjoint(after["skipped"])
    made = Path(after["archive"]["path"])
    assert made.is_file() and hashlib.sha256(made.read_bytes()).hexdigest() == after["archive"]["sha256"]
    with closing(sqlite3.connect(settings.files.root / "mlflow.db")) as database:
        registered = database.execute("SELECT value FROM model_version_tags WHERE key = 'archive_sha256'")
        assert registered.fetchall() == [(after["archive"]["sha256"],)]
    scores = [[answer["churn_probability"] for answer in record["answers"]] for record in (before, after)]
    assert scores[0] == scores[1]


def test_a_forgotten_customer_is_in_no_file_and_is_not_ingested_again(
    ran: dict[str, Any], overrides: list[str], settings: Settings
) -> None:
    files = settings.files
    (customer,) = customers_online(settings, 1)
    name = mask(str(customer), load_key(settings.data, files))
    assert name in known_names(files.snapshots)
    assert churn("forget", str(customer), "--reason", "request 17", overrides=overrides) == 0

    proof = json.loads(next(files.erasures.glob("*.json")).read_text())
    assert (proof["reason"], proof["remaining"], proof["removed"]["online store"]) == ("request 17", 0, 1)
    assert name not in json.dumps(proof) and name not in files.erased.read_text()
    for table in files.root.rglob("*.parquet"):
        frame = pd.read_parquet(table)
        assert "user_id" not in frame or name not in set(frame["user_id"]), table
    with zipfile.ZipFile(next(files.model_store.glob("*.mar"))) as archive:
        assert not any(name.encode() in archive.read(member) for member in archive.namelist())

    assert churn("ingest", overrides=overrides) == 0  # the source still has the customer
    assert churn("features", "build", overrides=overrides) == 0
    assert name not in known_names(files.records) and name not in known_names(files.snapshots)
    assert churn("forget", "nobody", "--reason", "request 18", overrides=overrides) == 2


def known_names(table: Path) -> set[str]:
    return set(pd.read_parquet(table, columns=["user_id"])["user_id"])
