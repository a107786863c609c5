"""The project name of a workspace in its feature store.

Feast stores all values by project and view. Two workspaces with the same project on one Redis would overwrite
each other's customers, and remove them as departed. In a store that may be shared, each workspace therefore
has a different project, unless the config names one.
"""

import hashlib
from pathlib import Path

import yaml

from core.workspace import Workspace
from features.spec import FeaturesConfig

PROJECT = "churn_prediction"


def project_of(spec: FeaturesConfig, files: Workspace) -> str:
    """`features.project`; else `churn_prediction` when the whole store is in the workspace; else the project
    that the workspace already has in the store; else a name derived from the workspace's path.

    The archive's feature_store.yaml contains it, so that a server reads the values of this workspace.
    """
    if spec.project is not None:
        return spec.project
    if _is_local(spec):
        return PROJECT
    return _registered_project(spec, files) or f"{PROJECT}_{_digest(files.root)}"


def _is_local(spec: FeaturesConfig) -> bool:
    registry = spec.registry if isinstance(spec.registry, str) else str(spec.registry.get("path", ""))
    online = str(spec.online_store.get("path", ""))
    return spec.online_store["type"] == "sqlite" and all(
        "://" not in path and not Path(path).is_absolute() for path in (registry, online)
    )


def _registered_project(spec: FeaturesConfig, files: Workspace) -> str | None:
    """The project of a workspace that already used such a store, also with a release that had one project."""
    try:
        content = yaml.safe_load((files.feast / "feature_store.yaml").read_text(encoding="utf-8"))
        if content["online_store"]["type"] == spec.online_store["type"]:
            return str(content["project"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        pass
    return None


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
