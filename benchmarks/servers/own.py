"""Starts our server, direct and through the gateway, and the no-ops that measure the cost of TorchServe."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

from benchmarks.servers.ground import ROOT, Ground, Running, Start, clock_of, environment
from benchmarks.servers.load import Target
from churn.settings import Settings
from core.workspace import Workspace
from pipelines.live import newest_archive, server
from serving.config import GatewayConfig, Tls
from serving.gateway.keys import Keys
from serving.gateway.process import Gateway
from serving.gateway.tls import TlsFiles
from serving.torchserve.server import TorchServe

V1 = '{"instances": [{"user_id": %s}]}'
NOOP = ROOT / "benchmarks" / "servers" / "noop_handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"
Reads = Literal["nothing", "messages", "features"]
"""What a no-op does: nothing, with TorchServe's own reader of messages; nothing, with our reader of messages;
the features of each customer, too."""


def ours(profile: str, **serving: Any) -> Start:
    """At TorchServe's own port; `serving` are settings that differ from the profile."""

    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        settings = with_profile(ground.settings, profile, **serving)
        files, now = Workspace(Path(mkdtemp(prefix=f"ours-{profile}-", dir=ground.folder))), datetime.now(UTC)
        with server(settings, files, now, clock_of(settings)) as running:
            yield Running((running.pid,), of_torchserve(running))

    return start


def through_the_gateway(profile: str, tls: bool = False) -> Start:
    """As `ours`, behind Envoy and with a key, which is how others reach it."""

    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        settings = with_profile(ground.settings, profile)
        folder, now = mkdtemp(prefix=f"gateway-{profile}-", dir=ground.folder), datetime.now(UTC)
        files = Workspace(Path(folder))
        keys = Keys(files.root / "keys.json")
        key = keys.add("benchmark", now)
        config = GatewayConfig(requests_per_s=1_000_000, burst=1_000_000, tls=Tls(enabled=tls))
        with (
            server(settings, files, now, clock_of(settings)) as behind,
            Gateway(config, settings.serving, files) as gateway,
        ):
            gateway.serve({}, keys.all())
            gateway.set_upstream("stable", behind.upstream)
            url = f"{gateway.url}/v1/models/{settings.serving.model_name}:predict"
            certificate = str(TlsFiles(config, files).certificate) if tls else None
            target = Target(url, V1, (f"Authorization: Bearer {key}",), certificate)
            yield Running((behind.pid, gateway.pid), target)

    return start


def noop(profile: str, reads: Reads = "nothing", **serving: Any) -> Start:
    @contextmanager
    def start(ground: Ground) -> Iterator[Running]:
        files = Workspace(Path(mkdtemp(prefix=f"noop-{reads}-{profile}-", dir=ground.folder)))
        config = with_profile(ground.settings, profile, **serving).serving
        archive, given = _archive(reads, ground, files.model_store), {"NOOP_READS": reads}
        if reads != "nothing":
            names = ("CHURN_", "NOOP_")
            given |= {n: v for n, v in environment(ground).items() if n.startswith(names)}
        with TorchServe(config, archive, given, files) as running:
            yield Running((running.pid,), of_torchserve(running))

    return start


def with_profile(settings: Settings, profile: str, **serving: Any) -> Settings:
    """For throughput, workers on half of the cores (the rest is for TorchServe itself); else one worker."""
    workers = max(1, (os.cpu_count() or 1) // 2) if profile == "throughput" else 1
    changes = {"profile": profile, "workers": workers} | serving
    return settings.model_copy(update={"serving": settings.serving.model_copy(update=changes)})


def of_torchserve(running: TorchServe) -> Target:
    token = f"Authorization: Bearer {running.tokens.inference}"
    return Target(f"{running.inference}/v1/models/churn:predict", V1, (token,))


def _archive(reads: Reads, ground: Ground, store: Path) -> Path:
    """A .mar with the handler that does nothing: alone, or in the place of ours in our own archive."""
    store.mkdir(parents=True, exist_ok=True)
    if reads == "nothing":
        options = {"--model-name": "noop", "--version": "1.0", "--handler": NOOP, "--export-path": store}
        archiver = [sys.executable, "-m", "model_archiver.model_packaging", "--force"]
        parts = [str(part) for option in options.items() for part in option]
        subprocess.run(
            [*archiver, *parts], check=True, capture_output=True, env={**os.environ, "TMPDIR": str(store)}
        )
        return store / "noop.mar"
    copy = store / "noop-reading.mar"
    with zipfile.ZipFile(newest_archive(ground.settings.files)) as archive, zipfile.ZipFile(copy, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            if name == MANIFEST:
                manifest = json.loads(content)
                manifest["model"]["handler"] = NOOP.name
                content = json.dumps(manifest).encode()
            out.writestr(name, content)
        out.write(NOOP, NOOP.name)
    return copy
