"""Redis with TLS and ACL. Its append-only file has every write that was acknowledged before a crash."""

import hashlib

from redis import Redis
from redis.exceptions import RedisError

from core.private_file import make_private
from deploy.loopback.place import USER, Place, program
from deploy.loopback.processes import Launch

NAME = "redis"
READY_S, STOP_S = 30.0, 20.0
RULES = "~* &* +@read +@write +@connection +@transaction +@scripting +info -@dangerous"
"""What the user may do: no KEYS, FLUSHALL, CONFIG, DEBUG or SHUTDOWN."""


def connection_string(place: Place) -> str:
    """The address in Feast's form (handlers/store/redis_address.py)."""
    return (
        f"{place.address(NAME)},db=0,username={USER},password={place.passwords[NAME]},ssl=true,"
        f"ssl_ca_certs={place.certificate}"
    )


def client(place: Place) -> Redis:
    return Redis(
        host=place.host,
        port=place.ports[NAME],
        username=USER,
        password=place.passwords[NAME],
        ssl=True,
        ssl_ca_certs=str(place.certificate),
    )


def prepare(place: Place) -> Launch:
    folder = place.of(NAME)
    folder.mkdir(exist_ok=True, mode=0o700)
    digest = hashlib.sha256(place.passwords[NAME].encode()).hexdigest()
    config = {
        "bind": place.host,
        "port": "0",
        "tls-port": str(place.ports[NAME]),
        "tls-cert-file": str(place.certificate),
        "tls-key-file": str(place.key),
        "tls-ca-cert-file": str(place.certificate),
        "tls-auth-clients": "no",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",  # a crash of the machine may lose one second, one of the process nothing
        "save": '""',
        "maxmemory-policy": "noeviction",
    }
    file = folder / "redis.conf"
    file.unlink(missing_ok=True)
    lines = [f"{key} {value}" for key, value in config.items()]
    make_private(file, "\n".join([*lines, "user default off", f"user {USER} on #{digest} {RULES}", ""]))
    return Launch([program("redis-server", package="apt-get install redis-server"), str(file)], folder)


def is_ready(place: Place) -> bool:
    try:
        with client(place) as connected:
            return bool(connected.ping())
    except RedisError:
        return False


def settle(place: Place) -> None:
    """Redis needs nothing more."""
