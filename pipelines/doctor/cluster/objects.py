"""Reads objects of any kind from the API server, by their paths."""

import json
from collections.abc import Callable
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from core.errors import ServingError

Object = dict[str, Any]
Read = Callable[[str], Object | None]
"""Path of the API -> the object; None where there is none. Raises ServingError."""
TIMEOUT_S = (3.0, 10.0)


class NotAllowed(ServingError):
    """This account may not read it."""


def reader(client: ApiClient) -> Read:
    """Raises, when it is called, ServingError where the API server does not answer."""

    def read(path: str) -> Object | None:
        return asked(client, "GET", path)

    return read


def asked(client: ApiClient, method: str, path: str, body: Object | None = None) -> Object | None:
    """The answer to a request; None for a path that does not exist. Raises ServingError and NotAllowed."""
    try:
        answer = client.call_api(
            path,
            method,
            body=body,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=TIMEOUT_S,
        )
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status == 403:
            raise NotAllowed(f"this account may not {method} {path}; run it as an administrator") from None
        raise ServingError(f"{path}: the API server answered {error.status}; see its log") from None
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ServingError(f"the API server does not answer: {reason}; check KUBECONFIG") from None
    found: Object = json.loads(answer[0].data if isinstance(answer, tuple) else answer.data)
    return found


def namespaced(namespace: str, plural: str, name: str, group: str = "", version: str = "v1") -> str:
    """The path of one object of a namespace."""
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}/{name}"


def definition(name: str) -> str:
    """The path of a CustomResourceDefinition."""
    return f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
