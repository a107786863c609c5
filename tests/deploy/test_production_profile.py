"""The whole loop on the stores of the production profile, each of which is used, killed, lost and restored.

The tests build on each other in the order of the file.
"""

import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.workspace import Workspace
from deploy.loopback import broker, object_store, redis_server
from deploy.loopback.stores import NAMES
from retraining.config import RetrainConfig
from retraining.ledger import Ledger
from support.retraining_situations import evidence
from support.servers.loopback import END, Loopback, loopback
from support.waits import within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PLAN = [{"weight": 0, "mirror": True, "min_s": 4, "max_s": 120, "min_requests": 100}] + [
    {"weight": weight, "min_s": 2, "max_s": 120, "min_requests": weight} for weight in (1, 5, 25, 50, 100)
]
SMALL = [
    "tuning.trials=1",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=1",
    "training.baselines=[base_rate, logistic_regression]",
    "training.cross_validation=1",
    f"rollout.rehearsal.stages={json.dumps(PLAN)}",
    "rollout.rehearsal.watch_s=2",
    "rollout.rehearsal.requests_per_s=50",
    "gateway.port=0",
]
CUSTOMERS = ("3", "5999", "12034", "17823", "23564")
"""Those whom `churn run` asks about, in its order."""


@pytest.fixture(scope="module")
def stores() -> Iterator[Loopback]:
    with loopback(SMALL) as started:
        yield started


@pytest.fixture(scope="module")
def ran(stores: Loopback) -> dict[str, Any]:
    stores.succeed("run")
    return record_of(stores.files)


@pytest.fixture(scope="module")
def local(stores: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace of the same run on the local profile, with the same key for identifiers."""
    files = Workspace(tmp_path_factory.mktemp("local"))
    stores.succeed("run", overrides=[f"workspace={files.root}", "rollout.rehearsal=null"], profile="local")
    return files


def record_of(files: Workspace) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(files.run_record.read_text())
    return record


def test_the_same_scores_as_on_the_local_profile(
    stores: Loopback, ran: dict[str, Any], local: Workspace
) -> None:
    ours, theirs = (pd.read_parquet(one.training / "test_scores.parquet") for one in (stores.files, local))
    keys = ["user_id", "event_timestamp"]
    both = ours.merge(theirs, on=keys, suffixes=("", "_local"), validate="one_to_one")
    assert len(both) == len(ours) == len(theirs) == 42_648
    np.testing.assert_allclose(both["score"], both["score_local"], rtol=0, atol=1e-12)
    answers = record_of(local)["answers"]
    assert [answer["user_id"] for answer in ran["answers"]] == [answer["user_id"] for answer in answers]
    for one, other in zip(ran["answers"], answers, strict=True):
        assert one["churn_probability"] == pytest.approx(other["churn_probability"], rel=0, abs=1e-12)


def test_each_store_has_what_the_run_put_there(stores: Loopback, ran: dict[str, Any]) -> None:
    """And the workspace has no database of its own."""
    files, place = stores.files, stores.place
    assert not list(files.root.glob("*.db")) and not list(files.feast.glob("*.db"))
    assert json.loads(files.manifest.read_text())["source_rows"] == 69_659
    assert stores.rows("shop", "SELECT count(*) FROM purchases") == [(69_659,)]
    assert stores.rows("mlflow", "SELECT name, version FROM model_versions") == [("churn-prediction", 1)]
    assert stores.rows("optuna", "SELECT count(*) FROM trials WHERE state = 'COMPLETE'") == [(1,)]
    services = stores.rows("feast", "SELECT feature_service_name FROM feature_services")
    assert services == [("churn_prediction_v1",)]
    moments = pd.read_parquet(files.snapshots, columns=["event_timestamp"])["event_timestamp"]
    with redis_server.client(place) as client:
        assert client.dbsize() == int((moments == moments.max()).sum())
    s3 = object_store.file_system(place)
    assert s3.exists(f"churn-data/records/{files.data.resolve().name}/manifest.json")
    assert any(path.endswith(".mar") for path in s3.find("churn-artifacts/mlflow"))
    logged = [json.loads(value) for value in stores.messages(broker.PREDICTIONS)]
    assert {record["user_id"] for record in logged} == {answer["user_id"] for answer in ran["answers"]}


def scores(answers: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(answer["user_id"], answer["churn_probability"]) for answer in answers]


@pytest.fixture(scope="module")
def served(stores: Loopback, ran: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers of `churn serve`."""
    with stores.serving():
        return stores.predict(*CUSTOMERS)


def test_each_store_is_killed_while_serving_and_no_answer_is_lost(
    stores: Loopback, served: list[dict[str, Any]]
) -> None:
    before = len(stores.messages(broker.PREDICTIONS))
    asked = 0
    with stores.serving():
        for name in NAMES:
            if name == "redis":
                stores.predict(*CUSTOMERS)  # those whom the worker has read are answered while Redis is away
                asked += 1
            stores.kill(name)
            meanwhile = stores.predict(*CUSTOMERS)
            asked += 1
            assert scores(meanwhile) == scores(served), name
            assert {one["status"] for one in meanwhile} == {"degraded" if name == "redis" else "ok"}
            stores.up(name)

            def is_sound() -> bool:
                nonlocal asked
                asked += 1
                answers = stores.predict(*CUSTOMERS)
                return {one["status"] for one in answers} == {"ok"} and scores(answers) == scores(served)

            within(60, is_sound, f"answers after {name} was killed")
        # each answer is in the log once, although the broker was killed while it was written
        wanted = before + asked * len(CUSTOMERS)
        within(60, lambda: len(stores.messages(broker.PREDICTIONS)) >= wanted)
    logged = [json.loads(value) for value in stores.messages(broker.PREDICTIONS)]
    assert len(logged) == wanted
    assert len({(record["request_id"], record["user_id"]) for record in logged}) == wanted


@pytest.mark.parametrize(
    ("name", "after", "word"),
    [
        ("s3", None, "data.store"),
        ("redis", "features", "features.online_store"),
        ("postgresql", "training set", "127.0.0.1"),
        ("mlflow", "training set", "MLflow"),
    ],
)
def test_a_store_is_killed_while_training_and_the_next_run_continues(
    stores: Loopback, ran: dict[str, Any], name: str, after: str | None, word: str, tmp_path: Path
) -> None:
    """`after`: the step after which it is killed."""
    log, files = tmp_path / "run.log", stores.files
    before = files.steps.read_text()
    if after is None:
        stores.kill(name)
    process = stores.started("run", "--force", "--no-rollout", log=log)
    if after is not None:
        within(240, lambda: _is_done(files, after, before), log.read_text)
        stores.kill(name)
    assert process.wait(400) in (1, 2), log.read_text()
    last = " ".join(log.read_text().split())
    assert "Traceback" not in last and word in last, last
    stores.up(name)
    stores.succeed("run", "--no-rollout")
    if after is not None:
        assert after in record_of(files)["skipped"]


def test_kafka_is_killed_while_training_and_no_step_needs_it(
    stores: Loopback, ran: dict[str, Any], tmp_path: Path
) -> None:
    """Scores are those of the run before, and its answers are in the topic once Kafka is back."""
    log, files = tmp_path / "run.log", stores.files
    before, logged = files.steps.read_text(), len(stores.messages(broker.PREDICTIONS))
    process = stores.started("run", "--force", "--no-rollout", log=log)
    within(240, lambda: _is_done(files, "training set", before), log.read_text)
    stores.kill("kafka")
    within(400, lambda: _is_done(files, "train", before), log.read_text)
    stores.up("kafka")
    assert process.wait(400) == 0, log.read_text()
    assert scores(record_of(files)["answers"]) == scores(ran["answers"])
    within(60, lambda: len(stores.messages(broker.PREDICTIONS)) == logged + len(CUSTOMERS))


def _is_done(files: Workspace, step: str, before: str) -> bool:
    """Whether this run has done the step, which had another record before."""
    now, then = json.loads(files.steps.read_text()), json.loads(before)
    return step in now and now[step] != then.get(step)


def facts(stores: Loopback) -> dict[str, Any]:
    """What has to be the same after a restore: registry, ledger, rollouts, studies, models and topics."""
    s3 = object_store.file_system(stores.place)
    tables = {
        "mlflow": ("model_versions", "registered_model_aliases", "runs", "metrics", "params", "tags"),
        "optuna": ("trials", "trial_params", "trial_values"),
        "rollout": ("rollouts", "events", "projections", "retraining_decisions", "monitor_runs"),
    }
    found: dict[str, Any] = {
        f"{database}.{table}": sorted(map(repr, stores.rows(database, f"SELECT * FROM {table}")))
        for database, names in tables.items()
        for table in names
    }
    with redis_server.client(stores.place) as client:
        keys = sorted(client.scan_iter(count=1000))
        found["redis"] = [(key, sorted(client.hgetall(key).items())) for key in keys[:200]]
        found["customers"] = len(keys)
    for bucket in ("churn-data", "churn-artifacts", "churn-models"):
        found[bucket] = {path: s3.info(path)["size"] for path in s3.find(bucket)}
    found["predictions"] = sorted(stores.messages(broker.PREDICTIONS))
    return found


def test_all_state_is_lost_and_restored(
    stores: Loopback, ran: dict[str, Any], served: list[dict[str, Any]], tmp_path: Path
) -> None:
    ledger, now = Ledger(stores.variables["CHURN_ROLLOUT_DATABASE"]), datetime.now(UTC)
    state = ledger.state("churn", ran["archive"]["version"], now - timedelta(days=1))
    ledger.decide(RetrainConfig(), state, evidence(), now, "cron")
    stores.succeed("deploy", "--store-only")
    vault = {"CHURN_BACKUP": str(tmp_path / "vault")}  # on another machine than the stores
    stores.succeed("backup", **vault)
    before = facts(stores)
    assert before["rollout.retraining_decisions"] and before["churn-models"] and before["customers"] > 1_000
    stores.lose(*NAMES)
    shutil.rmtree(stores.files.root)
    stores.up()
    began = time.monotonic()
    stores.succeed("restore", **vault)
    print(f"restored in {time.monotonic() - began:.0f} s")
    after = facts(stores)
    for name, found in before.items():
        assert after[name] == found, name
    with stores.serving():
        assert scores(stores.predict(*CUSTOMERS)) == scores(served)
    stores.succeed("run", "--no-rollout")
    assert {"features", "tune", "train"} <= set(record_of(stores.files)["skipped"])


def test_the_local_profile_moves_to_production(stores: Loopback, local: Workspace, tmp_path: Path) -> None:
    """Into empty stores: registry and artifacts, studies, and the customers with their scores."""
    vault = {"CHURN_BACKUP": str(tmp_path / "vault")}
    stores.succeed(
        "backup",
        overrides=[f"workspace={local.root}", f"backup.store={vault['CHURN_BACKUP']}"],
        profile="local",
    )
    stores.lose(*NAMES)
    shutil.rmtree(stores.files.root, ignore_errors=True)
    stores.up()
    stores.succeed("restore", **vault)
    archive = json.loads(stores.files.archive_record.read_text())
    assert archive["path"].startswith(str(stores.files.root))
    assert any(
        path.endswith(".mar") for path in object_store.file_system(stores.place).find("churn-artifacts")
    )
    assert len(stores.rows("mlflow", "SELECT name FROM model_versions")) == 1
    assert stores.rows("optuna", "SELECT count(*) FROM trials WHERE state = 'COMPLETE'") == [(1,)]
    refused = stores.churn("serve", "--as-of", END)
    assert refused.returncode == 2 and "run `churn package`" in " ".join(refused.stderr.split())
    stores.succeed("package")
    with stores.serving():
        answers = stores.predict(*CUSTOMERS)
    for one, other in zip(answers, record_of(local)["answers"], strict=True):
        assert one["churn_probability"] == pytest.approx(other["churn_probability"], rel=0, abs=1e-12)
    stores.succeed("registry", "list")
