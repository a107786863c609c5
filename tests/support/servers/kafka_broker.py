"""A real Kafka broker (KRaft) on loopback: in plain text, with TLS, and with TLS and SASL.

Its jars come from Maven once (`org.apache.kafka:kafka_2.13`), or from the folder that CHURN_KAFKA_LIBS names.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.servers.tls_files import TlsFiles, tls_files
from support.waits import free_port, within

VERSION = "3.9.1"
CACHE = Path.home() / ".cache" / "churn" / f"kafka-{VERSION}"
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"
USER, PASSWORD = "churn", "s3cret-pass"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>churn</groupId><artifactId>broker</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>"""


@dataclass
class Broker:
    """A broker whose `start` and `kill` may follow each other; its data stay in `folder`."""

    folder: Path
    libs: Path
    tls: TlsFiles
    plain: int = field(default_factory=free_port)
    ssl: int = field(default_factory=free_port)
    sasl_ssl: int = field(default_factory=free_port)
    process: "psutil.Popen | None" = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.plain}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        from confluent_kafka.admin import AdminClient

        with (self.folder / "log").open("ab") as log:
            self.process = psutil.Popen(
                [*self._java("kafka.Kafka"), str(self.folder / "server.properties")],
                stdout=log,
                stderr=log,
            )
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0})

        def is_up() -> bool:
            assert self.process is not None and self.process.poll() is None, self._tail()
            return bool(client.list_topics(timeout=2).brokers)

        within(60, is_up, self._tail, ignored=Exception)

    def kill(self) -> None:
        """kill -9"""
        if self.process is not None and self.process.is_running():
            self.process.kill()
            self.process.wait()
        self.process = None

    def stop(self) -> None:
        if self.process is not None and self.process.is_running():
            self.process.terminate()
            try:
                self.process.wait(20)
            except psutil.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def create(self, *topics: str, partitions: int = 1, **config: str) -> None:
        from confluent_kafka.admin import AdminClient, NewTopic

        client = AdminClient({"bootstrap.servers": self.address})
        made = client.create_topics([NewTopic(name, partitions, 1, config=config) for name in topics])
        for outcome in made.values():
            outcome.result(20)

    def prepare(self) -> None:
        """Writes the configuration and formats the storage."""
        store = self.folder / "keystore.pem"
        store.write_text(self.tls.key.read_text() + self.tls.certificate.read_text())
        store.chmod(0o600)
        (self.folder / "server.properties").write_text(self._properties(store))
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        command = [*self._java("kafka.tools.StorageTool"), "format", "-t", CLUSTER, "--add-scram", scram]
        command += ["-c", str(self.folder / "server.properties")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _java(self, main: str) -> list[str]:
        heap = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return [str(shutil.which("java")), *heap, "-cp", f"{self.libs}/*", main]

    def _properties(self, store: Path) -> str:
        controller = free_port()
        lines: dict[str, Any] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.plain},SSL://127.0.0.1:{self.ssl},"
            f"SASL_SSL://127.0.0.1:{self.sasl_ssl},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
            "SASL_SSL:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": store,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.tls.ca,
            "listener.name.ssl.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security."
            "scram.ScramLoginModule required;",
            "log.dirs": self.data,
            "num.partitions": 1,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def _tail(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


@contextmanager
def kafka_broker(folder: Path) -> Iterator[Broker]:
    """A started broker, killed at the end of the block. Skips where Java or Kafka's jars are absent."""
    pytest.importorskip("confluent_kafka")
    libs = _libs()
    folder.mkdir(parents=True, exist_ok=True)
    broker = Broker(folder, libs, tls_files(folder / "tls"))
    broker.prepare()
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@cache
def _libs() -> Path:
    if shutil.which("java") is None:
        pytest.skip("Kafka needs Java 17: apt-get install openjdk-17-jre-headless")
    if given := os.environ.get("CHURN_KAFKA_LIBS"):
        return Path(given)
    libs = CACHE / "libs"
    if not libs.is_dir():
        if shutil.which("mvn") is None:
            pytest.skip("Kafka's jars come from Maven: apt-get install maven, or set CHURN_KAFKA_LIBS")
        fresh = CACHE.with_name(f"{CACHE.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        (fresh / "pom.xml").write_text(POM)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fresh / 'libs'}"]
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip("Kafka's jars cannot be fetched by Maven; set CHURN_KAFKA_LIBS")
        try:
            fresh.rename(CACHE)
        except OSError:  # another process was first
            shutil.rmtree(fresh)
    return libs
