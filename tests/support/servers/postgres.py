"""A PostgreSQL server of our own on loopback, for as long as a `with` block lasts."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.waits import free_port, within

PASSWORD = "s3cret-pass"


@contextmanager
def postgres() -> Iterator[str]:
    """The start of its databases' addresses, `postgresql+psycopg://churn:PASSWORD@127.0.0.1:PORT/`; there are
    `studies` and `mlflow`. Skips where it cannot be run."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("initdb is not installed: apt-get install postgresql")
    who = _another_user()
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:  # its sockets need a short path
        folder, secret = Path(name), Path(name) / "secret"
        secret.write_text(PASSWORD)
        if who:
            for path in (folder, secret):
                shutil.chown(path, who)
        made = [binaries / "initdb", "-D", folder / "db", "-U", "churn", "--auth=scram-sha-256",
                f"--pwfile={secret}", "-N", "--no-locale", "-E", "UTF8"]  # fmt: skip
        subprocess.run(made, check=True, capture_output=True, user=who, cwd=folder)
        port = free_port()
        command = [binaries / "postgres", "-D", folder / "db", "-p", str(port), "-k", name,
                   "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]  # fmt: skip
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, user=who, cwd=folder)
        try:
            _wait(binaries, port, server, folder / "log")
            for database in ("studies", "mlflow"):
                _create(binaries, port, database)
            yield f"postgresql+psycopg://churn:{PASSWORD}@127.0.0.1:{port}/"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:  # a client still holds on
                server.kill()
                server.wait()


def _create(binaries: Path, port: int, database: str) -> None:
    command = [binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "churn", database]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PGPASSWORD": PASSWORD})


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").is_file()), None)


def _another_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _wait(binaries: Path, port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    command = [binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]

    def is_ready() -> bool:
        assert server.poll() is None, log.read_text()
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    within(60, is_ready, log.read_text)
