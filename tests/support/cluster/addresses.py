"""Stores that pods and this machine reach at the same addresses, named by environment variables."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest


@dataclass(frozen=True)
class Addresses:
    gateway: str
    """CHURN_CLUSTER_GATEWAY: URL of the gateway, which routes by the Host header."""
    redis: str
    """CHURN_CLUSTER_REDIS: Feast's connection string."""
    postgres: str
    """CHURN_CLUSTER_POSTGRES: postgresql+psycopg://user:password@host:port, with databases feast and
    rollout."""
    s3: str
    """CHURN_CLUSTER_S3: http://key:secret@host:port/bucket."""
    prometheus: str
    """CHURN_CLUSTER_PROMETHEUS: URL; it labels samples with namespace and
    serving_kserve_io_inferenceservice."""
    image: str
    """CHURN_CLUSTER_SERVE_IMAGE: churn-serve, as the nodes know it."""

    @property
    def store(self) -> str:
        return f"s3://{urlsplit(self.s3).path.strip('/')}"

    @property
    def aws(self) -> dict[str, str]:
        """The variables of an S3 client on this machine."""
        parts = urlsplit(self.s3)
        return {
            "AWS_ACCESS_KEY_ID": str(parts.username),
            "AWS_SECRET_ACCESS_KEY": str(parts.password),
            "AWS_ENDPOINT_URL": f"{parts.scheme}://{parts.hostname}:{parts.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


def addresses() -> Addresses:
    names = {
        name: f"CHURN_CLUSTER_{name.upper()}" for name in ("gateway", "redis", "postgres", "s3", "prometheus")
    }
    missing = [variable for variable in names.values() if not os.environ.get(variable)]
    if missing:
        pytest.skip(f"cluster: {', '.join(missing)} not set: docs/kubernetes.md says what they name")
    image = os.environ.get("CHURN_CLUSTER_SERVE_IMAGE", "registry.example.com/churn-serve:1.0.0")
    return Addresses(image=image, **{name: os.environ[variable] for name, variable in names.items()})
