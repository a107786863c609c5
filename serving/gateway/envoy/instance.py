"""One Envoy process: its ports, the files that it reads (some of them again while it runs), and its logs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.gateway.envoy.api import TYPE


@dataclass(frozen=True)
class EnvoyInstance:
    port: int
    metrics_port: int
    folder: Path
    """The process's private folder, which is removed with it. Everything but the two logs is in it."""
    access_log: Path
    key_use_log: Path
    secrets: Sequence[str] = ()
    """Names of the secrets (serving/gateway/tls.py) that the public listener uses; empty: no TLS."""

    def secret(self, name: str) -> Path:
        return self.folder / f"secret-{name}.json"

    @property
    def admin(self) -> Path:
        return self.folder / "admin.sock"

    @property
    def routes(self) -> Path:
        return self.folder / "routes.json"

    @property
    def failures(self) -> Path:
        """Failed requests while there is a canary, by customer (rollout/observers/failures.py)."""
        return self.folder / "failures.log"

    def endpoints(self, cluster_name: str) -> Path:
        """A file for each cluster: Envoy takes one assignment from one file."""
        return self.folder / f"endpoints-{cluster_name}.json"


def watched(file: Path) -> dict[str, Any]:
    """Envoy's reference to a file that it reads again after each change."""
    return {
        "path_config_source": {"path": str(file), "watched_directory": {"path": str(file.parent)}},
        "resource_api_version": "V3",
    }


def watched_text(kind: str, version: int, content: dict[str, Any]) -> str:
    """The text of such a file. `kind`: the full name of the content's message after `envoy.`."""
    resource = {"@type": TYPE + kind, **content}
    return json.dumps({"version_info": str(version), "resources": [resource]})
