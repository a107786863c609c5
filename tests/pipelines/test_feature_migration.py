"""A change of the features while a model serves, from the first edit to the removal of the old ones.

Every command is a process, as a user gives it. The expected scores are computed here: the features by pandas
from the shop's file, the score by the program in the archive of the version that answered.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml

from core.workspace import Workspace
from handlers.bundle import BundleError, read_bundle
from handlers.scoring.encoding import encode
from handlers.store.opening import open_features
from model.export import load_program
from model.program import score
from support.waits import within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

START, END = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC)
CUSTOMERS = 500
PLAN = [
    {"weight": 0, "mirror": True, "min_s": 2, "max_s": 300, "min_requests": 40},
    {"weight": 50, "min_s": 4, "max_s": 300, "min_requests": 100},
    {"weight": 100, "min_s": 2, "max_s": 300, "min_requests": 40},
]
SMALL = (
    "tuning.trials=0",
    "model.seeds=[0]",
    "model.trees=false",
    "training.epochs=8",
    "training.baselines=[base_rate, logistic_regression]",
    "training.cross_validation=0",
    "gateway.port=0",
    "gateway.keys=false",
    f"rollout.stages={json.dumps(PLAN)}",
    "rollout.watch_s=2",
    "rollout.rules.latency=null",  # the machine may be busy
    "rollout.rules.score_shift=null",  # another model may have other scores
    "rollout.rules.decision_rate=null",
)
LENIENT = {
    "floors": {"minimum": {"auroc": 0.5}, "maximum": {}},
    "beats_baselines": {"metric": "log_loss", "margin_share": 0.99},
    "champion": {"metric": "log_loss", "margin_share": 0.99},
    "worst_segment": {"margin": 5.0, "min_rows": 100},
    "stability": {"margin": 5.0, "min_rows": 100},
    "calibration": {"max_ece": 0.9},
}
"""Small models of a made shop are not good; that the comparison is made is what matters here."""

SHARED = [
    {"name": "total_purchases", "dtype": "int64", "default": 0, "sql": "count(*)"},
    {"name": "tenure_months", "dtype": "float64", "sql": "max(age_days) / 30.4375"},
    {"name": "recency_days", "dtype": "float64", "sql": "min(age_days)"},
    {"name": "avg_purchase_amount", "dtype": "float64", "sql": "avg(amount)"},
]
DERIVED = [
    {"name": "purchase_frequency", "numerator": "total_purchases", "denominator": "tenure_months"},
]
V1, V2 = "shop_v1", "shop_v2"
FEATURES: Mapping[str, list[dict[str, Any]]] = {
    V1: [
        *SHARED,
        {"name": "recent_spend", "dtype": "float64", "default": 0.0,
         "sql": "sum(amount) filter (age_days <= 90)"},
        {"name": "orders_30d", "dtype": "int64", "default": 0, "sql": "count(*) filter (age_days <= 30)"},
    ],
    V2: [
        *SHARED,
        {"name": "recent_spend", "dtype": "float64", "default": 0.0,
         "sql": "sum(amount) filter (age_days <= 45)"},
        {"name": "largest_purchase", "dtype": "float64", "sql": "max(amount)"},
    ],
}  # fmt: skip
"""The second spec adds a feature, removes one, and gives one another window under the same name."""


def purchases() -> pd.DataFrame:
    """Customers with a rate each, who stop at some time."""
    draw = np.random.default_rng(7)
    days = (END - START).days
    rows = []
    for customer in range(CUSTOMERS):
        rate, stops = draw.gamma(2, 1 / 40), min(draw.exponential(1.2 * days), days - 0.01)
        at = draw.uniform(0, 60)
        while at < stops:
            rows.append((customer, at, round(float(draw.gamma(2, 20)), 2)))
            at += draw.exponential(1 / rate)
    # the last day has a purchase, so that the newest snapshot is at END
    rows.append((0, days - 0.5, 10.0))
    made = pd.DataFrame(rows, columns=["buyer", "at", "paid"])
    made["when"] = [START + timedelta(days=float(one)) for one in made.pop("at")]
    made["when"] = made["when"].dt.floor("s")
    return made.sort_values(["when", "buyer"]).reset_index(drop=True)


def features_of(service: str, bought: pd.DataFrame) -> pd.DataFrame:
    """The inputs of a service at END by buyer, computed without this project."""
    age = (pd.Timestamp(END) - bought["when"]) / pd.Timedelta(days=1)
    rows = bought.assign(age=age)
    grouped = rows.groupby("buyer")
    found = pd.DataFrame(
        {
            "total_purchases": grouped.size(),
            "tenure_months": grouped["age"].max() / 30.4375,
            "recency_days": grouped["age"].min(),
            "avg_purchase_amount": grouped["paid"].mean(),
        }
    )

    def within_days(days: int) -> Any:
        return rows[rows["age"] <= days].groupby("buyer")["paid"]

    window = 90 if service == V1 else 45
    found["recent_spend"] = within_days(window).sum().reindex(found.index).fillna(0.0)
    if service == V1:
        found["orders_30d"] = within_days(30).size().reindex(found.index).fillna(0)
    else:
        found["largest_purchase"] = grouped["paid"].max()
    found["purchase_frequency"] = found["total_purchases"] / found["tenure_months"].clip(lower=1.0)
    return found


@dataclass
class Clients:
    """Request one customer after the other during the `with` block, and note each answer."""

    url: str
    buyers: Sequence[int]
    answers: list[tuple[int, str, float]] = field(default_factory=list)
    """Buyer, model version, churn probability."""
    failures: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def sending(self) -> Iterator["Clients"]:
        workers = [threading.Thread(target=self._send, args=(start,)) for start in range(2)]
        for worker in workers:
            worker.start()
        try:
            yield self
        finally:
            self._over.set()
            for worker in workers:
                worker.join()

    def _send(self, start: int) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            number = start
            while not self._over.is_set():
                buyer = self.buyers[number * 7919 % len(self.buyers)]
                number += 2
                try:
                    answer = client.post(f"{self.url}/predictions/churn", json={"user_id": buyer})
                    found = answer.json()
                    if answer.status_code != 200 or found["status"] != "ok":
                        self.failures.append(f"{answer.status_code} {answer.text[:200]}")
                    else:
                        self.answers.append((buyer, found["model_version"], found["churn_probability"]))
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.failures.append(repr(error))
                time.sleep(0.02)


@dataclass
class Shop:
    """The commands of a user in one folder."""

    folder: Path
    environment: Mapping[str, str]

    @property
    def files(self) -> Workspace:
        return Workspace(self.folder / "var")

    def overlay(self, name: str, service: str, features: Sequence[Mapping[str, Any]]) -> Path:
        content = {
            "data": {
                "source": {
                    "kind": "csv",
                    "uri": str(self.folder / "purchases.csv"),
                    "columns": {"user_id": "buyer", "timestamp": "when", "amount": "paid"},
                    "user_id_type": "integer",
                }
            },
            "features": {
                "service": service, "horizon_days": 60, "eligible": "recency_days <= 200",
                "features": list(features), "derived": DERIVED,
            },
            "gates": {"profiles": {"default": LENIENT}},
        }  # fmt: skip
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def command(self, overlay: Path, *words: str) -> list[str]:
        given = [part for one in (*SMALL, f"workspace={self.files.root}") for part in ("--set", one)]
        return [sys.executable, "-m", "churn", *words, "--config", str(overlay), *given]

    def run(self, overlay: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(overlay, *words), cwd=self.folder, env=self.environment, capture_output=True,
            text=True, check=False, timeout=900,
        )  # fmt: skip

    def succeed(self, overlay: Path, *words: str) -> str:
        done = self.run(overlay, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, overlay: Path, *words: str) -> str:
        """The one line with which a command ends."""
        done = self.run(overlay, *words)
        assert done.returncode == 2, done.stdout + done.stderr
        return " ".join(done.stderr.split())

    @contextmanager
    def serving(self, overlay: Path) -> Iterator[str]:
        log, record = self.folder / "serve.log", self.files.serving / "server.json"
        with log.open("w") as output:
            process = subprocess.Popen(
                self.command(overlay, "serve", "--as-of", END.isoformat()), cwd=self.folder,
                env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return record.is_file() and json.loads(record.read_text()).get("pid") == process.pid

        try:
            within(180, is_ready, log.read_text, ignored=ValueError)
            yield json.loads(record.read_text())["inference"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    @property
    def packaged(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.files.archive_record.read_text())
        return found

    def rows_online(self, service: str) -> list[tuple[Any, ...]]:
        """Feast's rows of a service, as they are in SQLite."""
        table = "churn_prediction_user_features" + ("_v2" if service == V2 else "")
        with closing(sqlite3.connect(self.files.feast / "online.db")) as connection:
            query = f"SELECT entity_key, feature_name, value, event_ts FROM {table} ORDER BY 1, 2"
            return connection.execute(query).fetchall()

    def expected(self, archive: Path, service: str, bought: pd.DataFrame) -> dict[int, float]:
        """Buyer -> score by the archive's program, from features that are computed here."""
        folder = self.folder / f"unpacked-{archive.stem}"
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        bundle = read_bundle(folder)
        rows = features_of(service, bought)
        columns = {name: rows[name].to_numpy() for name in bundle.inputs}
        scores = score(load_program(bundle.program), *encode(columns, bundle.numeric, bundle.vocabulary))
        return dict(zip(rows.index.tolist(), scores.tolist(), strict=True))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    root = Path(__file__).resolve().parents[2]
    bought = purchases()
    bought.assign(when=bought["when"].map(lambda one: one.isoformat())).to_csv(
        tmp_path / "purchases.csv", index=False
    )
    settings = {"PYTHONPATH": str(root), "COLUMNS": "400", "OMP_NUM_THREADS": "1", "CHURN_MASK_KEY": "k" * 40}
    return Shop(tmp_path, {**os.environ, **settings})


def test_from_the_first_change_to_pruning(shop: Shop) -> None:
    bought = purchases()
    before = shop.overlay("before", V1, FEATURES[V1])
    shop.succeed(before, "run", "--no-rollout")
    first = shop.packaged
    report_of_first = shop.folder / "gate_report.json"
    report_of_first.write_bytes((shop.files.gate_report / "gate_report.json").read_bytes())
    shop.succeed(before, "registry", "promote", "--reason", "it is the first")
    recent = features_of(V1, bought)
    buyers = recent.index[recent["recency_days"] <= 200].tolist()
    scores = {first["version"]: shop.expected(Path(first["path"]), V1, bought)}

    with shop.serving(before) as url:
        rows = shop.rows_online(V1)

        # the spec changes under its old name: refused before anything is overwritten
        careless = shop.overlay("careless", V1, FEATURES[V2])
        manifest = shop.files.feature_manifest.read_bytes()
        for step in (("ingest",), ("features", "build"), ("features", "materialize")):
            message = shop.refused(careless, *step)
            assert "features.service shop_v1: feature recent_spend, feature orders_30d, feature" in message
            assert f"version {first['version']} (" in message and "such as shop_v2" in message
        assert shop.files.feature_manifest.read_bytes() == manifest and shop.rows_online(V1) == rows

        # under a new name: both are built, online and compared
        after = shop.overlay("after", V2, FEATURES[V2])
        shop.succeed(after, "run", "--no-rollout")
        second = shop.packaged
        scores[second["version"]] = shop.expected(Path(second["path"]), V2, bought)
        assert shop.rows_online(V1) == rows and shop.rows_online(V2)
        report = json.loads((shop.files.gate_report / "gate_report.json").read_text())
        [compared] = [one for one in report["verdicts"] if one["rule"] == "champion"]
        assert "champion version 1" in compared["reason"] and compared["passed"]

        clients = Clients(url, buyers)
        with clients.sending():
            shop.succeed(after, "rollout", "start", "--reason", "another window")
            shop.succeed(after, "rollout", "watch")
            shop.succeed(after, "rollback", "--reason", "a drill")
            shop.succeed(after, "rollout", "start", "--reason", "once more")
            shop.succeed(after, "rollout", "watch")
        refuse_wrong(clients, scores)
        assert {version for _, version, _ in clients.answers} == {first["version"], second["version"]}
        assert answer_of(url, buyers[0])["model_version"] == second["version"]

        # each version is scored with its own features, by the commands of either configuration
        for config in (before, after):
            for archive in (first, second):
                out = shop.folder / "scores.parquet"
                shop.succeed(config, "score", "--version", archive["version"], "--out", str(out))
                listed = pd.read_parquet(out)
                assert set(listed["model_version"]) == {archive["version"]}
                wanted = sorted(scores[archive["version"]][buyer] for buyer in buyers)
                np.testing.assert_allclose(sorted(listed["churn_probability"]), wanted, rtol=0, atol=1e-6)

        # what served is measured by its own spec, whatever is configured, and trained again from its own data
        at = (END + timedelta(hours=20)).isoformat()
        for config in (before, after):
            found = json.loads(shop.succeed(config, "monitor", "--as-of", at, "--dry-run", "--json"))
            assert [one for one in found["findings"] if one["check"] in ("skew", "stale")] == []
            assert found["version"] == second["version"]
        assert "both programs are equal to the bit" in shop.succeed(after, "reproduce", "1")
        assert "shop_v1, shop_v2" in shop.succeed(after, "doctor")

        # v1 is what a rollback returns to, until a person gives that up
        assert f"{V1}: stays" in shop.succeed(after, "features", "prune")
        assert "--give-up-rollback" in shop.refused(after, "features", "prune", V1)
        assert "(stable" in shop.refused(before, "features", "prune", V2)
        removed = shop.succeed(after, "features", "prune", V1, "--give-up-rollback")
        assert f"{V1}: removed, with the values of {len(buyers)} customers" in " ".join(removed.split())
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            shop.rows_online(V1)
        message = shop.refused(after, "rollback", "--reason", "too late")
        assert f"version {first['version']}: reads features.service shop_v1" in message
        assert "which is not online" in message and "churn features materialize" in message
        for command in (("deploy", first["path"]), ("rollout", "start", "--archive", first["path"])):
            reason = () if command[0] == "deploy" else ("--reason", "too late")
            given = (*command, "--report", str(report_of_first), *reason)
            assert "features.service shop_v1" in shop.refused(after, *given)
        assert answer_of(url, buyers[0])["churn_probability"] == pytest.approx(
            scores[second["version"]][buyers[0]], abs=1e-6
        )
        shop.succeed(after, "run", "--no-rollout")  # and it does not come back by itself
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            shop.rows_online(V1)

    unpacked = shop.folder / f"unpacked-{Path(first['path']).stem}"
    stores = {name: str(shop.files.feast / file) for name, file in ADDRESSES.items()}
    with pytest.raises(BundleError, match="no FeatureService shop_v1 in its registry"):
        open_features(unpacked, read_bundle(unpacked), {**shop.environment, **stores})


ADDRESSES = {"CHURN_FEAST_REGISTRY": "registry.db", "CHURN_FEAST_ONLINE": "online.db"}


def answer_of(url: str, buyer: int) -> dict[str, Any]:
    answer = httpx.post(f"{url}/predictions/churn", json={"user_id": buyer}, trust_env=False, timeout=60)
    found: dict[str, Any] = answer.json()
    return found


def refuse_wrong(clients: Clients, scores: Mapping[str, Mapping[int, float]]) -> None:
    """Assert that no request failed, and that each answer is that of its version."""
    assert clients.failures == []
    wrong = [
        (buyer, version, found, scores[version][buyer])
        for buyer, version, found in clients.answers
        if abs(found - scores[version][buyer]) > 1e-6
    ]
    assert wrong == [] and len(clients.answers) > 500
