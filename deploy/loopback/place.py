"""Where the stores of one machine are: folder, ports and passwords, which stay the same at each start."""

import json
import os
import pwd
import secrets
import shutil
import socket
import stat
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.errors import ChurnError
from core.private_file import make_private, read_private
from serving.gateway.tls import generated_pair

HOST = "127.0.0.1"
USER = "churn"
PORTS = ("postgresql", "redis", "s3", "kafka", "kafka_controller", "mlflow")
PASSWORDS = ("postgresql", "redis", "s3", "kafka", "mask", "backup")


class StoreError(ChurnError):
    """A store cannot be started or stopped."""


@dataclass(frozen=True)
class Place:
    """The folder of the stores, with what `stores.json` in it states."""

    folder: Path
    ports: dict[str, int]
    passwords: dict[str, str]
    host: str = HOST
    """Where PostgreSQL, Redis, S3 and MLflow listen."""

    @classmethod
    def at(cls, folder: Path, host: str = HOST) -> "Place":
        """The stores of `folder`; ports, passwords and certificate are made at the first call.

        `host`: another address of this machine, where the pods of a cluster can reach it.
        Raises StoreError where PostgreSQL, which does not run as root, could not reach the folder.
        """
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        _check_reachable(folder)
        record = folder / "stores.json"
        if not record.exists():
            made = {
                "ports": dict(zip(PORTS, _free_ports(host, len(PORTS)), strict=True)),
                "passwords": {name: secrets.token_hex(32) for name in PASSWORDS},
            }
            make_private(record, json.dumps(made, indent=2))
        content = json.loads(read_private(record, "record of the stores", StoreError))
        place = cls(folder, content["ports"], content["passwords"], host)
        if not place.certificate.exists():
            chain, key = generated_pair(sorted({"localhost", HOST, host}), datetime.now(UTC))
            make_private(place.key, key)
            make_private(place.chain_and_key, key + chain)
            place.certificate.write_text(chain, encoding="ascii")
        return place

    @property
    def certificate(self) -> Path:
        """PEM of the certificate of all stores; clients trust it as its own authority."""
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def chain_and_key(self) -> Path:
        """Both in one file, as Kafka reads them."""
        return self.folder / "key-and-certificate.pem"

    @property
    def python(self) -> Path:
        """The Python that runs this; programs of its packages are beside it."""
        return Path(sys.executable)

    @property
    def environment(self) -> Path:
        """Lines `export NAME='value'` with the addresses of all stores, with passwords: mode 600."""
        return self.folder / "environment"

    def address(self, store: str) -> str:
        return f"{self.host}:{self.ports[store]}"

    def log(self, store: str) -> Path:
        return self.folder / "logs" / f"{store}.log"

    def of(self, store: str) -> Path:
        """The folder with the data of one store."""
        return self.folder / store


def program(name: str, *folders: Path, package: str) -> str:
    """The path of a program on PATH or in one of `folders`. Raises StoreError that names its package."""
    found = shutil.which(name) or next((str(f / name) for f in folders if (f / name).is_file()), None)
    if found is None:
        raise StoreError(f"{name}: not installed; {package}")
    return found


def server_account() -> pwd.struct_passwd | None:
    """The account for a server that refuses to run as root; None: that of this process."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _check_reachable(folder: Path) -> None:
    if server_account() is None:
        return
    for above in (folder, *folder.parents):
        if not above.stat().st_mode & stat.S_IXOTH:
            raise StoreError(
                f"{above}: closed to other accounts, and PostgreSQL does not run as root; give another folder"
                " with --folder"
            )


def _free_ports(host: str, count: int) -> list[int]:
    """Different ports that are free now."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
