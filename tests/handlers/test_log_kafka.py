"""The prediction log as a topic, with librdkafka's own broker, and its first bytes over real TLS."""

import ctypes
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from handlers.bundle import BundleError
from handlers.records.kafka import KafkaTopic
from handlers.records.log import PredictionLog
from handlers.records.settings import kafka_security, open_log
from support.prediction_records import ORIGIN, records
from support.served_bundle import NOW
from support.servers.tls_files import TlsFiles, tls_files
from support.waits import within

kafka = pytest.importorskip("confluent_kafka")
LOG = "CHURN_PREDICTION_LOG"


@pytest.fixture
def broker() -> Iterator[str]:
    """The address of librdkafka's own broker, which implements the protocol on loopback."""
    producer = kafka.Producer({"test.mock.num.brokers": 1})
    [address] = [f"{b.host}:{b.port}" for b in producer.list_topics(timeout=10).brokers.values()]
    yield address
    producer.flush(1)


def test_the_environment_names_the_sink(tmp_path: Path) -> None:
    assert open_log({}, ORIGIN) is None
    log = open_log({"CHURN_PREDICTION_LOG": str(tmp_path / "new")}, ORIGIN)
    assert log is not None
    log.close()
    assert (tmp_path / "new").is_dir()
    file = tmp_path / "file"
    file.touch()
    for wrong, complaint in (
        ({"CHURN_PREDICTION_LOG": str(file)}, "CHURN_PREDICTION_LOG: .*File exists"),
        (
            {"CHURN_PREDICTION_LOG": str(tmp_path), "CHURN_PREDICTION_LOG_WINDOW_S": "soon"},
            "_WINDOW_S: expected",
        ),
        ({"CHURN_PREDICTION_LOG": str(tmp_path), "CHURN_PREDICTION_LOG_WINDOW_S": "0"}, "a number above 0"),
        ({"CHURN_PREDICTION_LOG_KAFKA": "localhost:9092"}, "expected host:port/topic"),
        ({"CHURN_PREDICTION_LOG": "a", "CHURN_PREDICTION_LOG_KAFKA": "b/c"}, "set one of them"),
    ):
        with pytest.raises(BundleError, match=complaint):
            open_log(wrong, ORIGIN)


def test_kafka_gets_every_record_as_json(broker: str) -> None:
    topic = KafkaTopic(broker, "predictions")
    log = PredictionLog(lambda: topic, ORIGIN)
    log.append(replace(records(1, 2), trace_ids=("a" * 32, None)))
    log.append(records(3))
    within(20, lambda: topic.delivered == 3)
    log.close()
    assert log.counts() == {"handed": 3, "written": 3, "dropped": 0, "waiting": 0}
    messages = consumed(broker, 3)
    values = sorted((json.loads(m.value()) for m in messages), key=lambda value: value["request_id"])
    assert [value["request_id"] for value in values] == ["1", "2", "3"]
    assert {m.key().decode() for m in messages} == {value["user_id"] for value in values}
    assert values[0]["feature_spend"] is None
    assert [value["trace_id"] for value in values] == ["a" * 32, None, None]
    assert datetime.fromisoformat(values[0]["time"]) == NOW


def test_records_without_a_broker_are_counted_and_two_lines_say_so(caplog: pytest.LogCaptureFixture) -> None:
    topic = KafkaTopic("127.0.0.1:1", "predictions")
    log = PredictionLog(lambda: topic, ORIGIN)
    log.append(records(1, 2))
    log.close()
    assert log.counts() == {"handed": 2, "written": 0, "dropped": 2, "waiting": 0}
    assert caplog.text.count("; trying again") == 1
    assert "no broker has acknowledged 2 records before the end; they are lost" in caplog.text
    assert caplog.text.count("kafka: ") == 2


def consumed(broker: str, count: int) -> list[Any]:
    """This number of messages of the topic, or those that arrive within 20 s."""
    consumer = kafka.Consumer(
        {"bootstrap.servers": broker, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["predictions"])
    messages: list[Any] = []
    deadline = time.monotonic() + 20
    while len(messages) < count and time.monotonic() < deadline:
        messages += [m for m in [consumer.poll(0.5)] if m is not None and m.error() is None]
    consumer.close()
    return messages


def end_for_good(topic: KafkaTopic) -> None:
    """Ends the producer as if a broker had lost records that it had acknowledged."""
    [library] = (Path(kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*")
    end = ctypes.CDLL(str(library)).rd_kafka_test_fatal_error
    end.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    handle = ctypes.c_void_p.from_address(id(topic._producer) + object.__basicsize__).value
    assert end(handle, kafka.KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"records were lost") == 0


def test_a_producer_that_has_ended_is_replaced_and_the_log_continues(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = KafkaTopic(broker, "predictions")
    log = PredictionLog(lambda: topic, ORIGIN, take_every_s=0.01)
    log.append(records(1))
    within(20, lambda: topic.delivered == 1)
    end_for_good(topic)
    within(20, lambda: topic.renewals == 1)
    log.append(records(2, 3))
    within(20, lambda: topic.delivered == 3)
    log.close()
    assert log.counts() == {"handed": 3, "written": 3, "dropped": 0, "waiting": 0}
    assert sorted(json.loads(m.value())["request_id"] for m in consumed(broker, 3)) == ["1", "2", "3"]
    assert "OUT_OF_ORDER_SEQUENCE_NUMBER" in caplog.text


def test_records_in_a_producer_that_has_ended_are_counted_as_lost() -> None:
    topic = KafkaTopic("127.0.0.1:1", "predictions")
    log = PredictionLog(lambda: topic, ORIGIN, take_every_s=0.01, close_timeout_s=1.0)
    log.append(records(1, 2))
    within(10, lambda: log.counts()["waiting"] == 0)
    end_for_good(topic)
    within(10, lambda: topic.renewals == 1)
    assert log.counts() == {"handed": 2, "written": 0, "dropped": 2, "waiting": 0}
    log.close()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"SECURITY": "tls"}, "KAFKA_SECURITY: expected one of"),
        ({"CA": "/etc/hostname"}, "KAFKA_CA: .* set ssl or sasl_ssl"),
        ({"SECURITY": "ssl", "CA": "/none"}, "KAFKA_CA: /none cannot be read"),
        ({"SECURITY": "ssl", "CERTIFICATE": "/etc/hostname"}, "set both or none"),
        ({"USER": "me"}, "KAFKA_USER: .* set sasl_ssl"),
        ({"SECURITY": "sasl_ssl", "USER": "me"}, "needs both"),
        ({"SECURITY": "sasl_ssl", "USER": "me", "PASSWORD_FILE": "/none"}, "PASSWORD_FILE: cannot be read"),
        (
            {"SECURITY": "sasl_ssl", "USER": "me", "PASSWORD": "s3cret", "MECHANISM": "MD5"},
            "MECHANISM: ",
        ),
        (
            {"SECURITY": "sasl_plaintext", "USER": "me", "PASSWORD": "s3cret", "MECHANISM": "PLAIN"},
            "PLAIN would send the password in clear text",
        ),
    ],
)
def test_contradictory_security_settings_are_named(more: dict[str, str], complaint: str) -> None:
    environment = {f"{LOG}_KAFKA": "localhost:9093/predictions"}
    environment |= {f"{LOG}_KAFKA_{name}": value for name, value in more.items()}
    with pytest.raises(BundleError, match=complaint) as raised:
        open_log(environment, ORIGIN)
    assert "s3cret" not in str(raised.value)


def test_a_password_is_read_from_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    environment = {
        f"{LOG}_KAFKA_SECURITY": "sasl_ssl",
        f"{LOG}_KAFKA_USER": "me",
        f"{LOG}_KAFKA_PASSWORD_FILE": str(file),
    }
    file.chmod(0o644)
    with pytest.raises(BundleError, match="mode 644 is open to all; chmod 600 it"):
        kafka_security(environment)
    file.chmod(0o440)
    assert kafka_security(environment) == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "s3cret",
    }


class TlsListener:
    """Accepts one TLS connection, and records the client's name and its first frame."""

    def __init__(self, files: TlsFiles) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.certificate, files.key)
        self.context.load_verify_locations(files.ca)
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.client: Any = None
        self.frame = b""
        self.refused = threading.Event()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(plain, server_side=True) as connection:
                    self.client = connection.getpeercert()
                    self.frame = connection.recv(4096)
                    return
            except (ssl.SSLError, OSError):
                self.refused.set()


@pytest.mark.parametrize("trusted", [True, False])
def test_a_client_connects_over_tls_to_a_broker_that_it_trusts(tmp_path: Path, trusted: bool) -> None:
    files, others = tls_files(tmp_path / "a"), tls_files(tmp_path / "b")
    listener = TlsListener(files)
    environment = {
        f"{LOG}_KAFKA": f"127.0.0.1:{listener.port}/predictions",
        f"{LOG}_KAFKA_SECURITY": "ssl",
        f"{LOG}_KAFKA_CA": str((files if trusted else others).ca),
        f"{LOG}_KAFKA_CERTIFICATE": str(files.certificate),
        f"{LOG}_KAFKA_KEY": str(files.key),
    }
    log = open_log(environment, ORIGIN)
    assert log is not None
    with closing(listener.socket):
        if trusted:
            within(10, lambda: listener.frame)
            assert b"rdkafka" in listener.frame  # ApiVersions names the client
            assert dict(part[0] for part in listener.client["subject"])["commonName"] == "churn"
        else:
            within(10, listener.refused.is_set)
            assert not listener.frame
    log._close_timeout_s = 0.1
    log.close()
