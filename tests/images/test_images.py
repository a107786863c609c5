"""The serving image as KServe runs it: any user, no capability, only /tmp writable, the model mounted."""

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pandas as pd
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.bundle import read_bundle
from handlers.identity import mask
from handlers.scoring.program import Scorer
from pipelines.score import model_columns
from serving.config import ServingConfig
from serving.torchserve.layout import write_layout
from support import hostile_grpc
from support.served_bundle import FRESH, KEY, NOW, UNKNOWN, ServedBundle
from training.archive.signing import sign, trust_line

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim-bookworm"
BUILD_S, START_S = 900, 120
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def engine(*arguments: str, timeout: float = 120, check: bool = True) -> str:
    program = shutil.which("podman") or shutil.which("docker")
    assert program is not None
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=timeout, check=False, cwd=REPOSITORY
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(arguments[:2])}: {done.stderr[-2000:]}")
    return done.stdout.strip() if check else str(done.returncode)


@pytest.fixture(scope="module")
def image() -> str:
    """churn-serve, built; flags that this machine's build needs come from CHURN_IMAGE_FLAGS."""
    if not (shutil.which("podman") or shutil.which("docker")):
        pytest.skip("neither podman nor docker is installed")
    if engine("image", "inspect", BASE, check=False) != "0":
        pytest.skip(f"the base image {BASE} is not here: pull it first")
    if engine("run", "--rm", BASE, "true", check=False) != "0":
        pytest.skip("containers cannot be run on this machine")
    form = ["--format", "docker"] if shutil.which("podman") else []
    flags = shlex.split(os.environ.get("CHURN_IMAGE_FLAGS", ""))
    engine("build", *form, *flags, "--tag", "churn-serve", "--file", "Dockerfile.serve", ".", timeout=BUILD_S)
    return "churn-serve"


@pytest.fixture(scope="module")
def mounted(bundle: ServedBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What KServe's initializer leaves at /mnt/models, and beside it the feature store's files."""
    folder = tmp_path_factory.mktemp("mnt")
    archive = folder / bundle.archive.name
    shutil.copyfile(bundle.archive, archive)
    sign(archive, SIGNER)
    write_layout(ServingConfig(), archive, folder / "models")
    (folder / "features").mkdir()
    for name in ("registry.db", "online.db"):
        shutil.copyfile(bundle.root / name, folder / "features" / name)
    return folder


@pytest.fixture(scope="module")
def running(image: str, mounted: Path) -> Iterator[tuple[str, str]]:
    """(container, address) of a server that has answered."""
    offset = NOW.timestamp() - time.time()
    environment = {
        "CHURN_FEAST_REGISTRY": "/mnt/features/registry.db",
        "CHURN_FEAST_ONLINE": "/mnt/features/online.db",
        "CHURN_MASK_KEY": KEY.decode(),
        "CHURN_CLOCK_OFFSET_S": str(offset),
        "CHURN_TRUSTED_SIGNERS": trust_line("us", SIGNER.public_key()),
    }
    container = engine(
        *("run", "--detach", "--publish", "127.0.0.1::8080", "--user", "1000", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108
        *("--volume", f"{mounted / 'models'}:/mnt/models:ro"),
        *("--volume", f"{mounted / 'features'}:/mnt/features:ro"),
        *(part for name, value in environment.items() for part in ("--env", f"{name}={value}")),
        image,
    )
    try:
        port = engine("port", container, "8080").splitlines()[0].rpartition(":")[2]
        address = f"http://127.0.0.1:{port}"
        _wait(address, container)
        yield container, address
    finally:
        engine("rm", "--force", "--time", "5", container, check=False)


def _wait(address: str, container: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{address}/predictions/churn", json={"user_id": 1}, timeout=5)
            if answer.status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    logs = engine("logs", container)
    pytest.fail(f"no answer within {START_S} s: {logs[-3000:]}")


def test_it_predicts_what_the_program_says_to_the_bit(running: tuple[str, str], bundle: ServedBundle) -> None:
    ids = list(FRESH)[:100]
    body = {"instances": [{"user_id": i} for i in ids]}

    answer = httpx.post(f"{running[1]}/v1/models/churn:predict", json=body, timeout=30)

    assert answer.status_code == 200
    given = {p["user_id"]: p["churn_probability"] for p in answer.json()["predictions"]}
    content = read_bundle(bundle.model_dir)
    customers = bundle.customers.set_index("user_id").loc[[mask(str(i), KEY) for i in ids]]
    columns = model_columns(pa.RecordBatch.from_pandas(pd.DataFrame(customers)), content.spec)
    expected = Scorer(content.program, content.numeric, content.vocabulary).score(columns)
    assert [given[i] for i in ids] == expected.tolist()


def test_it_has_the_drivers_of_the_production_profile(image: str) -> None:
    """Feast's registry in PostgreSQL, and Redis; what only builds features is not needed."""
    code = (
        "import psycopg, redis, sqlalchemy\n"
        "sqlalchemy.create_engine('postgresql+psycopg://user@127.0.0.1/feast')\n"
        "print('fits')"
    )
    assert engine("run", "--rm", "--entrypoint", "python", image, "-c", code) == "fits"


def test_an_unknown_customer_is_no_server_error(running: tuple[str, str]) -> None:
    answer = httpx.post(f"{running[1]}/predictions/churn", json={"user_id": UNKNOWN}, timeout=30)
    assert answer.status_code == 404


def test_the_health_check_asks_the_worker(running: tuple[str, str]) -> None:
    assert engine("exec", running[0], "python", "-I", "/etc/churn/healthy.py", check=False) == "0"


def test_it_offers_the_whole_protocol(running: tuple[str, str], bundle: ServedBundle) -> None:
    """All calls are made in tests/serving/test_protocol_clients.py; here the modules are of the image."""
    metadata = httpx.get(f"{running[1]}/v2/models/churn", timeout=30).json()
    assert metadata["versions"] == [read_bundle(bundle.model_dir).model_version]
    assert httpx.get(f"{running[1]}/v1/models/churn", timeout=30).json() == {"name": "churn", "ready": True}
    with grpc.insecure_channel(running[1].removeprefix("http://")) as channel:
        answer = channel.unary_unary(hostile_grpc.METHOD)(
            hostile_grpc.infer(list(FRESH)[:2]).SerializeToString(), timeout=30
        )
    assert answer


def test_no_worker_finds_code_of_ours_in_the_image_and_nothing_of_the_build_is_left(image: str) -> None:
    inspected = json.loads(engine("image", "inspect", image))[0]
    config = inspected["Config"]
    names = {entry.partition("=")[0] for entry in config["Env"]}
    assert config["User"].startswith("1000")
    # podman and docker write it down in different places
    check = config.get("Healthcheck") or inspected.get("Healthcheck") or inspected.get("HealthCheck")
    assert "/etc/churn/healthy.py" in str(check)
    assert not names & {"PYTHONPATH", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"}
    rooms = ("churn", "core", "data", "features", "model", "pipelines", "serving", "training", "handlers")
    code = f"import importlib.util as u; print([r for r in {rooms} if u.find_spec(r)])"
    assert engine("run", "--rm", "--entrypoint", "python", image, "-c", code) == "[]"


def test_management_is_not_reachable_from_outside(running: tuple[str, str]) -> None:
    code = (
        "import socket, urllib.request as r\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))\n"
        "address = s.getsockname()[0]\n"
        "try: r.urlopen(f'http://{address}:8081/models', timeout=3); print('open')\n"
        "except OSError: print('shut')\n"
    )
    assert engine("exec", running[0], "python", "-c", code) == "shut"


def test_a_stop_reaches_the_server(image: str, mounted: Path) -> None:
    container = engine(
        *("run", "--detach", "--read-only", "--tmpfs", "/tmp"),  # noqa: S108
        *("--env", f"CHURN_TRUSTED_SIGNERS={trust_line('us', SIGNER.public_key())}"),
        *("--volume", f"{mounted / 'models'}:/mnt/models:ro", image),
    )
    try:
        time.sleep(3)
        start = time.monotonic()
        engine("stop", "--time", "30", container)
        assert time.monotonic() - start < 20
    finally:
        engine("rm", "--force", "--time", "1", container, check=False)


def test_without_a_model_it_says_so(image: str) -> None:
    program = shutil.which("podman") or shutil.which("docker")
    done = subprocess.run([str(program), "run", "--rm", image], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mount the model at /mnt/models" in done.stderr


def test_an_archive_that_nobody_trusted_signed_starts_no_server(image: str, mounted: Path) -> None:
    program = shutil.which("podman") or shutil.which("docker")
    stranger = trust_line("other", Ed25519PrivateKey.generate().public_key())
    done = subprocess.run(
        [
            *(str(program), "run", "--rm", "--env", f"CHURN_TRUSTED_SIGNERS={stranger}"),
            *("--volume", f"{mounted / 'models'}:/mnt/models:ro", image),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not among the trusted signers" in done.stderr


def test_our_metrics_are_there_to_be_scraped(running: tuple[str, str]) -> None:
    address = "http://127.0.0.1:8082/metrics"
    code = f"import urllib.request as r; print(r.urlopen({address!r}, timeout=5).read().decode())"
    names: set[str] = set()
    for _ in range(20):  # they are sent every few seconds
        names = {line.split("{")[0] for line in engine("exec", running[0], "python", "-c", code).splitlines()}
        if any(name.startswith("churn_") for name in names):
            return
        time.sleep(1)
    pytest.fail(f"only {sorted(names)[:20]}")
