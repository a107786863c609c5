"""Apache Kafka (KRaft, one node) with TLS and SCRAM, and the topics of predictions and purchases.

Maven fetches its jars once into the user's cache, or CHURN_KAFKA_LIBS names their folder. The listener
between controller and broker is clear text on loopback; clients have only the one with TLS and a password.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from core.private_file import make_private
from deploy.loopback.place import HOST, USER, Place, StoreError, program
from deploy.loopback.processes import Launch

NAME = "kafka"
VERSION = "3.9.1"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
PREDICTIONS, PURCHASES, DEAD_LETTERS = "predictions", "purchases", "purchases.dead"
TOPICS = {PREDICTIONS: 4, PURCHASES: 4, DEAD_LETTERS: 1}
"""Topic -> partitions."""
READY_S, STOP_S = 90.0, 30.0
JAVA = "apt-get install openjdk-17-jre-headless"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>churn</groupId><artifactId>broker</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>"""


def client_settings(place: Place) -> Mapping[str, str]:
    """librdkafka's settings for a client."""
    return {
        "bootstrap.servers": place.address(NAME),
        "security.protocol": "sasl_ssl",
        "ssl.ca.location": str(place.certificate),
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": place.passwords[NAME],
        "log_level": "2",
    }


def prepare(place: Place) -> Launch:
    """Format the storage at the first call. Raises StoreError when Java or the jars are not to be had."""
    folder, libs = place.of(NAME), _libs()
    folder.mkdir(exist_ok=True, mode=0o700)
    config = folder / "server.properties"
    config.unlink(missing_ok=True)
    make_private(config, "".join(f"{key}={value}\n" for key, value in _properties(place).items()))
    java = [program("java", package=JAVA), "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{libs}/*"]
    if not (folder / "data" / "meta.properties").exists():
        password = f"SCRAM-SHA-512=[name={USER},password={place.passwords[NAME]}]"
        command = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(config)]
        done = subprocess.run(
            [*command, "--add-scram", password], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise StoreError(f"kafka format: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return Launch([*java, "kafka.Kafka", str(config)], folder)


def is_ready(place: Place) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        client = AdminClient(dict(client_settings(place)))
        return bool(client.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def settle(place: Place) -> None:
    """Create the topics that do not exist yet."""
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    client = AdminClient(dict(client_settings(place)))
    found = client.list_topics(timeout=20).topics
    missing = [NewTopic(name, parts, 1) for name, parts in TOPICS.items() if name not in found]
    for created in (client.create_topics(missing) if missing else {}).values():
        created.result(30)


def _properties(place: Place) -> dict[str, object]:
    controller = f"{HOST}:{place.ports['kafka_controller']}"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    login = f'{scram} username="{USER}" password="{place.passwords[NAME]}";'
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"CLIENT://{place.address(NAME)},CONTROLLER://{controller}",
        "listener.security.protocol.map": "CLIENT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": login,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": place.chain_and_key,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": place.certificate,
        "log.dirs": place.of(NAME) / "data",
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # stored purchases are never removed by age: the stream is proved against them
        "log.retention.ms": -1,
    }


def _libs() -> Path:
    """The folder with the jars of Kafka. Raises StoreError when they cannot be fetched."""
    if given := os.environ.get("CHURN_KAFKA_LIBS"):
        return Path(given)
    cache = Path.home() / ".cache" / "churn" / f"kafka-{VERSION}"
    if not (cache / "libs").is_dir():
        maven = program(
            "mvn", package="apt-get install maven, or set CHURN_KAFKA_LIBS to a folder of its jars"
        )
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        (fresh / "pom.xml").write_text(POM, encoding="utf-8")
        command = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fresh / 'libs'}"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            raise StoreError("kafka: Maven cannot fetch its jars; set CHURN_KAFKA_LIBS to a folder of them")
        try:
            fresh.rename(cache)
        except OSError:  # another process was first
            shutil.rmtree(fresh)
    return cache / "libs"
