"""The stores of the production profile in real processes, and commands of `churn` on them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from core.workspace import Workspace
from deploy.loopback import broker, environment, postgresql
from deploy.loopback.place import HOST, Place, StoreError
from deploy.loopback.stores import NAMES, down, up
from support.waits import within

REPOSITORY = Path(__file__).resolve().parents[3]
END = "1998-07-01"
"""The newest features of the CDNOW log; by a clock at this moment they are fresh."""


@dataclass
class Loopback:
    place: Place
    settings: Sequence[str] = ()
    """`--set` of each command."""
    serve_log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.serve_log = self.place.folder / "serve.log"

    @property
    def variables(self) -> dict[str, str]:
        return environment.variables(self.place)

    @property
    def files(self) -> Workspace:
        return Workspace(Path(self.variables["CHURN_WORKSPACE"]))

    def up(self, *names: str) -> None:
        up(self.place, names or NAMES, lambda line: None)

    def kill(self, *names: str) -> None:
        """As a crash would."""
        down(self.place, names, lambda line: None, force=True)

    def lose(self, *names: str) -> None:
        """A crash after which nothing is left of the data."""
        self.kill(*names)
        for name in names:
            shutil.rmtree(self.place.of(name), ignore_errors=True)

    def churn(
        self, *command: str, overrides: Sequence[str] = (), profile: str = "production", **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*command, overrides=overrides, profile=profile),
            env=self._environment(**more),
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def succeed(self, *command: str, **options: Any) -> str:
        """The output of a command that has to end with 0."""
        done = self.churn(*command, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def started(self, *command: str, log: Path) -> "subprocess.Popen[str]":
        with log.open("ab") as output:
            return subprocess.Popen(
                self._command(*command), env=self._environment(), stdout=output, stderr=output, text=True
            )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """`churn serve`, which is ready, and stopped at the end."""
        process = self.started("serve", "--as-of", END, log=self.serve_log)
        record = self.files.serving / "server.json"

        def is_ready() -> bool:
            assert process.poll() is None, self.serve_log.read_text()
            return record.is_file() and json.loads(record.read_text()).get("pid") == process.pid

        try:
            within(120, is_ready, self.serve_log.read_text, ignored=ValueError)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def predict(self, *customers: str) -> list[dict[str, Any]]:
        """Answers of the running server, also errors."""
        done = self.churn("predict", *customers, "--json")
        assert done.stdout, done.stderr
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    def rows(self, database: str, statement: str) -> list[Any]:
        engine = sqlalchemy.create_engine(postgresql.uri(self.place, database), poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement)]

    def messages(self, topic: str) -> list[bytes]:
        """The values of all messages of the topic."""
        from confluent_kafka import Consumer, TopicPartition

        found = []
        with contextlib.closing(
            Consumer({**broker.client_settings(self.place), "group.id": "test"})
        ) as client:
            for number in range(broker.TOPICS[topic]):
                low, high = client.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
                client.assign([TopicPartition(topic, number, low)])
                read = 0
                while read < high - low:
                    batch = client.consume(high - low - read, 20)
                    assert batch, f"{topic}: {high - low - read} messages do not arrive"
                    found += [message.value() for message in batch]
                    read += len(batch)
        return found

    def _environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, **self.variables, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **more}

    def _command(
        self, *command: str, overrides: Sequence[str] = (), profile: str = "production"
    ) -> list[str]:
        given = [part for override in (*self.settings, *overrides) for part in ("--set", override)]
        return [sys.executable, "-m", "churn", *command, "--profile", profile, *given]


@contextmanager
def loopback(settings: Sequence[str] = ()) -> Iterator[Loopback]:
    """All stores."""
    with running_stores(NAMES) as place:
        yield Loopback(place, settings)


@contextmanager
def running_stores(names: Sequence[str], host: str = HOST) -> Iterator[Place]:
    """Those of `make production-up`, removed at the end. Skips where a program is not installed."""
    # PostgreSQL runs as another account, which cannot enter pytest's own folders
    folder = Path(tempfile.mkdtemp(prefix="stores-", dir="/tmp"))
    folder.chmod(0o755)
    place = Place.at(folder, host)
    try:
        try:
            up(place, names, lambda line: None)
        except StoreError as error:
            if "not installed" in str(error):
                pytest.skip(str(error))
            raise
        yield place
    finally:
        down(place, names, lambda line: None, force=True)
        shutil.rmtree(folder, ignore_errors=True)
