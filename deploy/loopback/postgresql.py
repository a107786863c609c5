"""PostgreSQL with TLS and SCRAM, and a database each for what is stored in it."""

import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from deploy.loopback.place import USER, Place, StoreError, program, server_account
from deploy.loopback.processes import Launch

NAME = "postgresql"
DATABASES = ("mlflow", "optuna", "feast", "rollout", "shop", "stream")
READY_S, STOP_S = 60.0, 30.0
PACKAGE = "apt-get install postgresql"


def uri(place: Place, database: str, driver: str = "+psycopg") -> str:
    """The address of a database. The client checks the server's certificate and name."""
    certificate = quote(str(place.certificate), safe="/")
    return (
        f"postgresql{driver}://{USER}:{place.passwords[NAME]}@{place.address(NAME)}/{database}"
        f"?sslmode=verify-full&sslrootcert={certificate}"
    )


def prepare(place: Place) -> Launch:
    """Initialise the cluster at the first call; how it is started. Raises StoreError when that fails."""
    account, folder = server_account(), place.of(NAME)
    if not (folder / "db" / "PG_VERSION").exists():
        _initialise(place, folder)
    name = None if account is None else account.pw_name
    settings = {
        "listen_addresses": place.host,
        "port": str(place.ports[NAME]),
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": str(folder / "certificate.pem"),
        "ssl_key_file": str(folder / "key.pem"),
        "max_connections": "200",
    }
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    command = [_binary("postgres"), "-D", str(folder / "db"), *options]
    return Launch(command, folder, account=name, stop_signal=signal.SIGINT)  # INT: clients are disconnected


def is_ready(place: Place) -> bool:
    command = [_binary("pg_isready"), "-h", place.host, "-p", str(place.ports[NAME]), "-q"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def settle(place: Place) -> None:
    """Create the databases that do not exist yet."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(uri(place, "postgres", ""), autocommit=True) as connection:
        found = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        for database in DATABASES:
            if database not in found:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def _initialise(place: Place, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(place.passwords[NAME], encoding="ascii")
    for name in ("certificate.pem", "key.pem"):  # the server reads a key only if it belongs to its account
        shutil.copy(place.folder / name, folder / name)
    (folder / "key.pem").chmod(0o600)
    account = server_account()
    if account is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, account.pw_uid, account.pw_gid)
    command = [_binary("initdb"), "-D", str(folder / "db"), "-U", USER, "--auth=scram-sha-256",
               f"--pwfile={secret}", "--no-locale", "-E", "UTF8"]  # fmt: skip
    who = None if account is None else account.pw_name
    done = subprocess.run(command, capture_output=True, text=True, check=False, user=who, cwd=folder)
    secret.unlink()
    if done.returncode != 0:
        shutil.rmtree(folder)
        raise StoreError(f"initdb: {done.stderr.strip().splitlines()[-1]}")
    access = folder / "db" / "pg_hba.conf"
    access.write_text(f"hostssl all {USER} all scram-sha-256\n", encoding="ascii")  # no clear text


def _binary(name: str) -> str:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian has them beside PATH
    return program(name, *places, package=PACKAGE)
