"""Purchases on a topic become online features by pods of `kserve/components/stream`, on a real cluster.

CHURN_CLUSTER_KAFKA: host:port of a broker without TLS that pods and this machine reach.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from handlers.identity import canonical_id, mask
from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found
from support.cluster.jobs import KEY, Jobs, workspaces
from support.retraining_runs import FAST
from support.waits import within

CUSTOMERS = 40
READ = """
import json, sys
from pathlib import Path
from churn.settings import load_settings
from features.store import open_store

masks = json.loads(sys.argv[2])
settings = load_settings("production", [Path(sys.argv[1])], sys.argv[3:])
store = open_store(settings.features, settings.files)
rows = [{"user_id": one} for one in masks]
found = store.get_online_features(["user_features:total_purchases"], rows).to_dict()
print(json.dumps(found["total_purchases"]))
"""


@pytest.fixture(scope="module")
def stream(stores: Addresses) -> Iterator[Jobs]:
    kafka = pytest.importorskip("confluent_kafka.admin")
    brokers = os.environ.get("CHURN_CLUSTER_KAFKA")
    if not brokers:
        pytest.skip("cluster: CHURN_CLUSTER_KAFKA not set: host:port of a broker that pods reach")
    namespace = f"jobs-{uuid4().hex[:6]}"
    admin = kafka.AdminClient({"bootstrap.servers": brokers})
    topics = [kafka.NewTopic(name, 4, 1) for name in (namespace, f"{namespace}.dead")]
    for created in admin.create_topics(topics).values():
        created.result(30)
    made = Jobs(workspaces() / namespace, stores, namespace, brokers)
    try:
        made.configure(str(made.log), namespace)
        for words in (["ingest"], ["features", "build"], ["features", "materialize"], ["stream", "load"]):
            made(*words)
        made.hand_over()
        made.apply()
        done("scale", "deployment/churn-stream", "-n", namespace, "--replicas=1")
        yield made
    finally:
        made.remove()
        for removed in admin.delete_topics([topic.topic for topic in topics]).values():
            removed.result(30)


def online(stream: Jobs) -> list[int]:
    """Purchases of each customer by the online store."""
    masks = [mask(canonical_id(user, "integer"), KEY.encode()) for user in range(1, CUSTOMERS + 1)]
    said = stream._run("-c", READ, str(stream.settings), json.dumps(masks), *FAST)
    counts: list[int] = json.loads(next(line for line in said.splitlines() if line.startswith("[")))
    return [count or 0 for count in counts]


def send(stream: Jobs, name: str) -> None:
    """One purchase of each customer, and each message twice."""
    import confluent_kafka

    producer = confluent_kafka.Producer({"bootstrap.servers": stream.kafka})
    when = datetime.now(UTC).isoformat()
    for user in range(1, CUSTOMERS + 1):
        body = json.dumps({"id": f"{name}-{user}", "customer": user, "when": when, "paid": 20.0})
        for _ in range(2):
            producer.produce(stream.namespace, body.encode(), key=str(user))
    assert producer.flush(30) == 0


def pods(stream: Jobs) -> list[Any]:
    listed = found("pods", "-n", stream.namespace, "-l", "churn.rollout/part=stream")["items"]
    return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]


def is_ready(stream: Jobs) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True"
        for pod in pods(stream)
        for one in pod["status"].get("conditions", [])
    )


def test_a_pod_puts_purchases_online_and_a_killed_one_counts_none_twice(stream: Jobs) -> None:
    within(300, lambda: is_ready(stream), lambda: pods(stream))
    before = online(stream)
    send(stream, "first")
    within(120, lambda: online(stream) == [count + 1 for count in before], lambda: online(stream))

    (pod,) = pods(stream)
    name = pod["metadata"]["name"]
    place = f"/api/v1/namespaces/{stream.namespace}/pods/{name}:9097/proxy"
    assert done("get", "--raw", f"{place}/livez") == "alive"
    metrics = done("get", "--raw", f"{place}/metrics")
    assert f'churn_stream_messages_total{{outcome="new"}} {CUSTOMERS}.0' in metrics
    assert f'churn_stream_messages_total{{outcome="repeated"}} {CUSTOMERS}.0' in metrics

    send(stream, "second")
    done("delete", "pod", name, "-n", stream.namespace, "--grace-period=0", "--force")
    send(stream, "third")
    within(300, lambda: online(stream) == [count + 3 for count in before], lambda: online(stream))
