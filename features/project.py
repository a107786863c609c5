"""Under which project a workspace stands in its feature store.

Feast keeps everything by project and view. Two workspaces on one Redis under one project would overwrite each
other's customers, and remove them as customers who left. So a store that others may use too gets a project
of the workspace's own, unless the config names one.
"""

import hashlib
from pathlib import Path

import yaml

from data.workspace import Workspace
from features.spec import FeaturesConfig

PROJECT = "churn_prediction"


def project_of(spec: FeaturesConfig, files: Workspace) -> str:
    """`features.project`; else `churn_prediction` where all of the store lies in the workspace; else the
    project that the workspace has there already; else one that is made from the workspace's path.

    The archive's feature_store.yaml names it, so a server reads what this workspace wrote.
    """
    if spec.project is not None:
        return spec.project
    if _is_own(spec):
        return PROJECT
    return _applied(spec, files) or f"{PROJECT}_{_digest(files.root)}"


def _is_own(spec: FeaturesConfig) -> bool:
    registry = spec.registry if isinstance(spec.registry, str) else str(spec.registry.get("path", ""))
    online = str(spec.online_store.get("path", ""))
    return spec.online_store["type"] == "sqlite" and all(
        "://" not in path and not Path(path).is_absolute() for path in (registry, online)
    )


def _applied(spec: FeaturesConfig, files: Workspace) -> str | None:
    """Of a workspace that has been in such a store before, by a release without projects of their own too."""
    try:
        content = yaml.safe_load((files.feast / "feature_store.yaml").read_text(encoding="utf-8"))
        if content["online_store"]["type"] == spec.online_store["type"]:
            return str(content["project"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        pass
    return None


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
