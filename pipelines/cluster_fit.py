"""Refuses an archive that only this machine can serve, before a cluster tries to.

The kinds of online store and registry are part of an archive. Only addresses and passwords come from the pod.
"""

import io
import zipfile
from typing import Any

import yaml

from core.errors import ArchiveError

ONLINE, REGISTRY = "redis", "sql"
"""What the serving image has clients for (extra `serve`) and what pods on several nodes share."""
REMEDY = (
    "run `churn features build`, `churn features materialize` and `churn package` under the profile of"
    " the cluster (--profile production)"
)


def refuse_unfit(content: bytes, name: str) -> None:
    """`content`: of a verified archive. Raises ArchiveError for a store that pods cannot read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        store: dict[str, Any] = yaml.safe_load(archive.read("feature_store.yaml"))
    online = str((store.get("online_store") or {}).get("type"))
    if online != ONLINE:
        raise ArchiveError(
            f"{name}: features.online_store.type: {online}: pods of a cluster cannot read it, but {ONLINE};"
            f" {REMEDY}"
        )
    registry = store.get("registry")
    kind = registry.get("registry_type", "file") if isinstance(registry, dict) else "file"
    if kind != REGISTRY:
        raise ArchiveError(
            f"{name}: features.registry.registry_type: {kind}: pods of a cluster cannot read it, but"
            f" {REGISTRY} in PostgreSQL; {REMEDY}"
        )
