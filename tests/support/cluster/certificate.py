"""The certificate of stores of our own in pods, at the path that it has here."""

from pathlib import Path
from typing import Any

from support.cluster.inventory import done

NAME = "test-stores"


def make(certificate: Path | None, namespace: str) -> None:
    """The ConfigMap that pods mount."""
    if certificate is not None:
        done("create", "configmap", NAME, "-n", namespace, f"--from-file={certificate}")


def mounted(certificate: Path | None, pod: str) -> list[dict[str, Any]]:
    """A JSON patch for the first container of the pod template at the path `pod`."""
    if certificate is None:
        return []
    mount = {"name": NAME, "mountPath": str(certificate), "subPath": certificate.name, "readOnly": True}
    return [
        {"op": "add", "path": f"{pod}/volumes/-", "value": {"name": NAME, "configMap": {"name": NAME}}},
        {"op": "add", "path": f"{pod}/containers/0/volumeMounts/-", "value": mount},
    ]
