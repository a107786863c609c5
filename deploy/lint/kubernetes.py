"""Manifests by the schemas of a Kubernetes version, where a misspelt field is an error."""

from collections.abc import Iterable, Mapping
from typing import Any

from deploy.lint.tool import Missing

VERSION = "1.34"
"""As deploy/terraform/aws: kubernetes_version."""
BUILT_IN = (
    "v1",
    "apps/",
    "batch/",
    "autoscaling/",
    "policy/",
    "networking.k8s.io/",
    "rbac.authorization.k8s.io/",
)


def schema_complaints(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the schemas refuse, as `Ingress churn: ...`. Custom resources have none here.

    Raises Missing where the schemas are not installed.
    """
    try:
        import kubernetes_validate
    except ImportError as error:
        raise Missing("kubernetes-validate is not here: make deploy-tools") from error
    found = []
    for document in documents:
        if not document["apiVersion"].startswith(BUILT_IN):
            continue
        try:
            kubernetes_validate.validate(document, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(str(part) for part in error.path)
            found.append(f"{document['kind']} {document['metadata']['name']}: {place}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{document['kind']} {document['metadata']['name']}: {error.message}")
    return found
