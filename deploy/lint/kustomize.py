"""The kustomizations of kserve/ and deploy/: kubectl builds each, and the result is checked by schema."""

import yaml

from deploy.lint.kubernetes import schema_complaints
from deploy.lint.tool import ROOT, find, output

FOLDERS = ("kserve/overlays/*/kustomization.yaml", "deploy/*/kustomization.yaml")


def complaints() -> list[str]:
    """What cannot be built, and what the schemas refuse. Raises Missing."""
    kubectl = find("kubectl", "https://kubernetes.io/docs/tasks/tools/")
    found = []
    for pattern in FOLDERS:
        for file in sorted(ROOT.glob(pattern)):
            folder = file.parent.relative_to(ROOT)
            code, built = output(kubectl, "kustomize", folder)
            if code != 0:
                found.append(f"{folder}: {built}")
                continue
            documents = [document for document in yaml.safe_load_all(built) if document]
            found += [f"{folder}: {complaint}" for complaint in schema_complaints(documents)]
    return found
