"""A real Prometheus that scrapes the real pods and the real Envoy, as a cluster's would.

Pods come and go, and their targets with them (file_sd, where a cluster has a ServiceMonitor). Each drill has
its own jobs, so that one Prometheus serves all: the names of the jobs separate the series of the drills.
Our Envoy calls its clusters stable and canary; in a cluster their names have that of a Service in them, which
they get here while they are scraped (metric_relabel_configs).
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollout.config import PrometheusConfig, RolloutConfig
from rollout.observers.observer import Observer
from rollout.observers.prometheus import PrometheusObserver
from rollout.observers.series import PrometheusClient

from support.drills.cluster_rig import Pods, on_cluster  # isort: skip
from support.servers.real_prometheus import SERVICE, running  # isort: skip
from support.drills.rig import VERSION, Rig  # isort: skip

NAMESPACE, NAME = "churn", "churn"
BACKENDS = ("stable", "canary")


@dataclass
class Scraped:
    """One drill's targets."""

    url: str
    file: Path
    drill: str
    """Part of the names of its jobs."""
    written: str = ""

    def follow(self, pods: Pods) -> None:
        text = json.dumps(self._targets(pods))
        if text != self.written:
            staged = self.file.with_suffix(".staged")
            staged.write_text(text)
            staged.replace(self.file)
            self.written = text

    def settings(self) -> dict[str, Any]:
        """`rollout.kserve`: whose series these are."""
        named = {"job": f"pods-{self.drill}", "gateway": "envoy", "gateway_job": f"envoy-{self.drill}"}
        return {"namespace": NAMESPACE, "name": NAME, "prometheus": named}

    def _targets(self, pods: Pods) -> list[dict[str, Any]]:
        supervisor, names = pods.rig.supervisor, pods.deployments
        backends = {
            f"{slot}_backend": f"{NAMESPACE}/{names[slot].removesuffix('-deployment')}/80/da39a3ee5e"
            for slot in BACKENDS
        }
        found = [_target(supervisor.gateway.metrics, job=f"envoy-{self.drill}", **backends)]
        servers = {"stable": supervisor.model, "canary": supervisor.canary.server}
        for slot, server in servers.items():
            address = getattr(server, "metrics", None)
            if address:
                labels = {"job": f"pods-{self.drill}", "namespace": NAMESPACE, SERVICE: NAME}
                found.append(_target(address, **labels, pod=f"{names[slot]}-7c5ddbdf54-x2x1z"))
        return found


def _target(address: str, **labels: str) -> dict[str, Any]:
    return {"targets": [urlsplit(address).netloc], "labels": labels}


@contextmanager
def scraping(folder: Path) -> Iterator[tuple[str, Path]]:
    """The address of a Prometheus, and the file of its targets."""
    file = folder / "targets.json"
    file.write_text("[]")
    named = [
        {
            "source_labels": ["envoy_cluster_name", f"{slot}_backend"],
            "regex": f"{slot};(.+)",
            "target_label": "envoy_cluster_name",
            "replacement": "$1",
        }
        for slot in BACKENDS
    ]
    dropped = {"action": "labeldrop", "regex": "(stable|canary)_backend"}
    pods = {
        "job_name": "everything",
        "file_sd_configs": [{"files": [str(file)], "refresh_interval": "1s"}],
        "metric_relabel_configs": [*named, dropped],
    }
    with running(folder / "prometheus", [pods]) as url:
        yield url, file


@dataclass
class Judged(Rig):
    """A rig whose rollouts are judged by what Prometheus has scraped."""

    scraped: Scraped | None = None

    @property
    def settings(self) -> dict[str, Any]:
        assert self.scraped is not None
        return self.scraped.settings()

    def wait_until_scraped(self) -> None:
        """Prometheus has samples of Envoy and of stable's pod: it takes new targets in every five seconds."""
        assert self.scraped is not None
        client = PrometheusClient(self.scraped.url, PrometheusConfig())
        wanted = [
            f'envoy_cluster_upstream_rq{{job="envoy-{self.scraped.drill}"}}',
            f'churn_requests_total{{job="pods-{self.scraped.drill}"}}',
        ]
        deadline = time.monotonic() + 60
        while not all(client.query(query) for query in wanted):
            assert time.monotonic() < deadline, "no scrape"
            time.sleep(0.2)
        time.sleep(2)  # what stable has answered just before is among it

    def probes(self) -> dict[str, float]:
        """Our own questions that the canary's handler has answered, by their way."""
        assert self.scraped is not None
        named = f'job="pods-{self.scraped.drill}",model_version="{VERSION}"'
        found = PrometheusClient(self.scraped.url, PrometheusConfig()).query(
            f"sum by (through) (churn_probes_total{{{named}}})"
        )
        return {one["metric"]["through"]: float(one["value"][1]) for one in found}

    def observer(self, config: RolloutConfig, labels: Path | None = None) -> Observer:
        assert self.scraped is not None
        return PrometheusObserver(self.scraped.url, VERSION, config)


@contextmanager
def judged_by_prometheus(
    rig: Rig, mode: str, candidate: Any, scraped: Scraped
) -> Iterator[tuple[Judged, Pods]]:
    with on_cluster(rig, mode, candidate, scraped.follow) as (there, pods):
        parts: Mapping[str, Any] = vars(there) | {"sticky": False, "scraped": scraped}
        yield Judged(**parts), pods
