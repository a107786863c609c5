"""The list of checks of a cluster, in the order in which a fault would be mended."""

import json
from pathlib import Path

from core.errors import ConfigError
from pipelines.cluster_fit import refuse_unfit
from pipelines.doctor.check import Installation, Named, Result, ok, warning
from pipelines.doctor.cluster import platform, reached, service
from pipelines.doctor.cluster.objects import reader
from rollout.targets.kserve.cluster import client_of


def cluster_checks(installation: Installation) -> tuple[Named, ...]:
    """Raises ConfigError where the settings name no cluster, ClusterError without a kubeconfig."""
    config = installation.settings.rollout
    kserve, mode = config.kserve, config.target
    if mode == "envoy":
        raise ConfigError(
            "rollout.target: envoy is this machine; give standard or knative, for example"
            " --set rollout.target=standard"
        )
    client = client_of(kserve.context)
    read = reader(client)
    return (
        Named("API server", lambda _: platform.api_server(read)),
        Named("KServe", lambda _: platform.kserve(read, mode)),
        Named("gateway", lambda _: platform.routing(read, mode)),
        Named("metrics of pods", lambda _: platform.pod_metrics(read)),
        Named("overlay", lambda _: service.applied(read, kserve)),
        Named("secrets", lambda _: service.secrets(read, kserve)),
        Named("stores from a pod", lambda _: reached.stores_from_a_pod(client, config, read), timeout_s=120),
        Named("Prometheus", lambda _: reached.prometheus(config)),
        Named("archive", _archive),
        Named("model", lambda _: service.model(read, kserve)),
    )


def _archive(installation: Installation) -> Result:
    """Pods can read the stores that the archive names."""
    record = installation.files.archive_record
    if not record.is_file():
        return warning("no model is packaged in this workspace", "churn package")
    archive = Path(json.loads(record.read_text(encoding="utf-8"))["path"])
    refuse_unfit(archive.read_bytes(), archive.name)
    return ok(f"{archive.name}: its stores can be read by pods")
