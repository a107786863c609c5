"""Namespaces of tests: the secret by which pods load models, and their end."""

import time

from support.cluster.addresses import Addresses
from support.cluster.inventory import done, found

REMOVED_WITHIN_S = 180


def make_storage_secret(namespace: str, to: Addresses) -> None:
    """churn-storage, with the annotations that KServe reads."""
    scheme, _, host = to.aws["AWS_ENDPOINT_URL"].partition("://")
    keys = "".join(f"{key}={to.aws[key]}\n" for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    secret = ("secret", "churn-storage", "-n", namespace)
    done("create", "secret", "generic", *secret[1:], "--from-env-file=/dev/stdin", body=keys)
    done(
        "annotate", *secret, f"serving.kserve.io/s3-endpoint={host}", "serving.kserve.io/s3-region=us-east-1",
        f"serving.kserve.io/s3-usehttps={int(scheme == 'https')}",
    )  # fmt: skip


def remove_namespace(namespace: str) -> None:
    done("delete", "namespace", namespace, "--wait=false")
    deadline = time.monotonic() + REMOVED_WITHIN_S
    while found("namespace", namespace) is not None:
        assert time.monotonic() < deadline, f"namespace {namespace} is still there"
        time.sleep(2)
