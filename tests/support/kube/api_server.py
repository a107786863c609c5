"""A Kubernetes API server for tests: real HTTP on loopback, for whatever kinds are put into it.

It does what a rollout can notice of a real one: JSON merge patches (RFC 7386), server-side apply (apply.py),
resourceVersion and 409, generation, a status that only controllers write, 404, 422 from CRD schemas, 400 for
unknown fields under strict validation, 403 from admission and from RBAC, answers that never come. Controllers
(knative.py, standard.py) run one step before each request, so that everything happens at last and nothing by
the clock.

Instead of it: kmock 0.8 serves the API over HTTP, but has neither resourceVersion nor generation nor
admission; mockernetes patches the Python client in the process; kwok, envtest and kind (not tried) need
binaries of kube-apiserver and etcd, which pip does not bring.
"""

import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jsonschema import Draft202012Validator

from support.kube.apply import Conflict, Owners, applied, changed

APPLY = "application/apply-patch+yaml"

Object = dict[str, Any]
Key = tuple[str, str, str, str]
"""Group, plural, namespace, name."""


class Refused(Exception):
    """An answer that is not 2xx, with what the API calls a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass(frozen=True)
class Call:
    verb: str
    """As RBAC names it."""
    group: str
    plural: str
    name: str
    body: Any = None
    code: int = 200
    sent: Object | None = field(default=None, compare=False)
    """Called after a write, with the object after it."""


@dataclass
class Store:
    """The objects in etcd. All writes are made here."""

    objects: dict[Key, Object] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0
    watchers: list[Callable[[Key, Object], None]] = field(default_factory=list)
    """Called with each version of each object."""

    def get(self, group: str, plural: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((group, plural, namespace, name))

    def of(self, group: str, plural: str) -> list[Object]:
        return [found for key, found in self.objects.items() if key[:2] == (group, plural)]

    def put(self, group: str, plural: str, content: Object) -> Object:
        """Create, or replace spec and metadata; a changed spec is a new generation."""
        meta = content["metadata"]
        key = (group, plural, meta["namespace"], meta["name"])
        before = self.objects.get(key)
        fresh = copy.deepcopy(content)
        if before is None:
            fresh["metadata"] |= {"uid": str(uuid.uuid4()), "generation": 1}
        else:
            same = before["spec"] == fresh["spec"]
            generation = before["metadata"]["generation"] + (0 if same else 1)
            fresh["metadata"] |= {"uid": before["metadata"]["uid"], "generation": generation}
            if "status" in before:
                fresh["status"] = before["status"]
            if same and _without_version(fresh) == _without_version(before):
                return before
        self._write(key, fresh)
        return fresh

    def put_status(self, content: Object, status: Object) -> None:
        """The status alone: no new generation."""
        if content.get("status") == status:
            return
        key = next(key for key, found in self.objects.items() if found is content)
        self._write(key, {**content, "status": copy.deepcopy(status)})

    def delete(self, group: str, plural: str, namespace: str, name: str) -> bool:
        return self.objects.pop((group, plural, namespace, name), None) is not None

    def touch(self, key: Key) -> None:
        """A write of another client at the same time."""
        self._write(key, self.objects[key])

    def _write(self, key: Key, content: Object) -> None:
        self.version += 1
        content = {**content, "metadata": {**content["metadata"], "resourceVersion": str(self.version)}}
        self.objects[key] = content
        for watcher in self.watchers:
            watcher(key, content)


Admission = Callable[[Object, Object | None], None]
"""Raises Refused; the new object and the old."""


class ApiServer:
    """`url` answers inside the `with` block."""

    def __init__(
        self,
        controllers: Sequence[Callable[[Store], None]] = (),
        schemas: Mapping[str, Object] | None = None,
        admission: Mapping[str, Admission] | None = None,
    ) -> None:
        """`schemas` and `admission`: by plural."""
        self.store = Store()
        self.calls: list[Call] = []
        self.down = False
        """While True no request is answered or carried out."""
        self.lose_answers = 0
        """So many requests are carried out and their answers lost."""
        self.foreign_writes = 0
        """So many patches conflict with a write of another client."""
        self.conflict_first = False
        """Every patch finds so at its first try."""
        self.rules: list[Object] | None = None
        """Of a Role; None: everything is allowed."""
        self._controllers = controllers
        self._schemas = {
            plural: (schema, Draft202012Validator(schema)) for plural, schema in (schemas or {}).items()
        }
        self._admission = admission or {}
        self._tried: set[str] = set()
        self._owners: dict[Key, Owners] = {}
        self._http: ThreadingHTTPServer | None = None

    def __enter__(self) -> "ApiServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        server = self

        class Handler(_Handler):
            api = server

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._http is not None
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._http = None

    @contextmanager
    def gone(self) -> Iterator[None]:
        """The process is not there: connections are refused. It comes back on its port."""
        self.stop()
        try:
            yield
        finally:
            self.start(self.port)

    def settle(self, steps: int = 30) -> None:
        with self.store.lock:
            for _ in range(steps):
                for step in self._controllers:
                    step(self.store)

    def patches(self, plural: str = "inferenceservices") -> list[Call]:
        """Of one kind of object."""
        return [call for call in self.calls if (call.verb, call.plural) == ("patch", plural)]

    def writes(self) -> list[Any]:
        """Bodies of the patches of InferenceServices that were taken, in order, without resourceVersion."""
        return [
            {key: part for key, part in call.body.items() if key != "metadata"}
            for call in self.patches()
            if call.code == 200
        ]

    # --- one request

    def answer(self, method: str, path: str, query: Mapping[str, list[str]], body: Any, kind: str) -> Any:
        with self.store.lock:
            self.settle(1)
            group, plural, namespace, name = _parsed(path)
            verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[
                method
            ]
            try:
                self._authorize(verb, group, plural, name)
                if (
                    verb == "patch"
                    and kind == APPLY
                    and self.store.get(group, plural, namespace, name) is None
                ):
                    verb = "create"  # it needs the right to both
                    self._authorize(verb, group, plural, name)
                result, code = self._do(verb, (group, plural, namespace, name), query, body, kind), 200
            except Refused as refused:
                self.calls.append(Call(verb, group, plural, name, copy.deepcopy(body), refused.code))
                raise
            sent = copy.deepcopy(result) if verb in ("patch", "create") else None
            self.calls.append(Call(verb, group, plural, name, copy.deepcopy(body), code, sent))
            return result

    def _do(self, verb: str, key: Key, query: Mapping[str, list[str]], body: Any, kind: str) -> Any:
        group, plural, namespace, name = key
        if verb == "list":
            found_all = [one for one in self.store.of(group, plural) if _selected(one, query)]
            return {"kind": "List", "items": found_all, "metadata": {}}
        if kind == APPLY:
            return self._apply(key, query, body)
        if verb == "create":
            self._validate(plural, body, None, query)
            if self.store.get(group, plural, namespace, body["metadata"]["name"]) is not None:
                raise Refused(409, "AlreadyExists", f'{plural} "{body["metadata"]["name"]}" already exists')
            body["metadata"]["namespace"] = namespace
            body.pop("status", None)
            return self.store.put(group, plural, body)
        found = self.store.get(*key)
        if found is None:
            raise Refused(404, "NotFound", f'{plural}.{group} "{name}" not found')
        if verb == "get":
            return found
        if verb == "delete":
            self.store.delete(*key)
            return {"kind": "Status", "status": "Success"}
        if kind != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", f"the body of the request was in {kind}")
        return self._patch(key, query, body)

    def _patch(self, key: Key, query: Mapping[str, list[str]], body: Any) -> Object:
        written = json.dumps([key, {k: v for k, v in body.items() if k != "metadata"}])
        if self.foreign_writes > 0 or (self.conflict_first and written not in self._tried):
            self.foreign_writes = max(0, self.foreign_writes - 1)
            self._tried.add(written)
            self.store.touch(key)
        else:
            self._tried.discard(written)
        found = self.store.objects[key]
        sent = (body.get("metadata") or {}).get("resourceVersion")
        if sent is not None and sent != found["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {key[1]}.{key[0]} "{key[3]}": the object has been'
                " modified; please apply your changes to the latest version and try again",
            )
        fresh = merged(found, body)
        fresh["status"] = found.get("status", {})
        self._validate(key[1], fresh, found, query)
        changed(self._owners.setdefault(key, {}), query.get("fieldManager", [""])[0], found, fresh)
        return self.store.put(key[0], key[1], fresh)

    def _apply(self, key: Key, query: Mapping[str, list[str]], body: Any) -> Object:
        group, plural, namespace, name = key
        found = self.store.get(*key)
        empty = {key: body[key] for key in ("apiVersion", "kind")} | {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {},
        }
        owners = copy.deepcopy(self._owners.get(key, {}))
        try:
            fresh = applied(owners, query["fieldManager"][0], found or empty, body)
        except Conflict as conflict:
            raise Refused(409, "Conflict", str(conflict)) from None
        self._validate(plural, fresh, found, query)
        self._owners[key] = owners
        return self.store.put(group, plural, fresh)

    def _validate(
        self, plural: str, fresh: Object, before: Object | None, query: Mapping[str, list[str]]
    ) -> None:
        name = fresh["metadata"]["name"]
        if plural in self._schemas:
            schema, validator = self._schemas[plural]
            if "Strict" in query.get("fieldValidation", []) and (strange := list(unknown(schema, fresh))):
                raise Refused(400, "BadRequest", f'strict decoding error: unknown field "{strange[0]}"')
            errors = [error for error in validator.iter_errors(fresh) if "status" not in error.absolute_path]
            if errors:
                where = ".".join(str(part) for part in errors[0].absolute_path)
                raise Refused(422, "Invalid", f'"{name}" is invalid: {where}: {errors[0].message}')
        if plural in self._admission:
            self._admission[plural](fresh, before)

    def _authorize(self, verb: str, group: str, plural: str, name: str) -> None:
        if self.rules is None:
            return
        for rule in self.rules:
            if (
                group in rule["apiGroups"]
                and plural in rule["resources"]
                and verb in rule["verbs"]
                and (not rule.get("resourceNames") or name in rule["resourceNames"])
            ):
                return
        raise Refused(403, "Forbidden", f'{plural}.{group} "{name}" is forbidden: User cannot {verb}')


def _selected(content: Object, query: Mapping[str, list[str]]) -> bool:
    """By labels; of field selectors only `type`."""
    labels = content["metadata"].get("labels") or {}
    wanted = dict(pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if pair)
    kind = query.get("fieldSelector", [""])[0].partition("type=")[2]
    return wanted.items() <= labels.items() and kind in ("", content.get("type"))


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def unknown(schema: Any, value: Any, path: str = "") -> Iterator[str]:
    """Fields that a structural schema does not name; the API server would prune them."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        for name, part in value.items():
            where = f"{path}.{name}".lstrip(".")
            if where in ("apiVersion", "kind", "metadata"):
                continue
            if name in schema.get("properties", {}):
                yield from unknown(schema["properties"][name], part, where)
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from unknown(schema["additionalProperties"], part, where)
            else:
                yield where
    elif isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            yield from unknown(schema["items"], part, f"{path}[{index}]")


def _without_version(content: Object) -> Object:
    meta = {key: part for key, part in content["metadata"].items() if key != "resourceVersion"}
    return {**content, "metadata": meta}


def _parsed(path: str) -> tuple[str, str, str, str]:
    parts = path.strip("/").split("/")
    if parts[0] == "apis" and len(parts) in (6, 7) and parts[3] == "namespaces":
        return parts[1], parts[5], parts[4], parts[6] if len(parts) == 7 else ""
    if parts[:2] == ["api", "v1"] and len(parts) in (5, 6) and parts[2] == "namespaces":
        return "", parts[4], parts[3], parts[5] if len(parts) == 6 else ""
    raise Refused(404, "NotFound", "the server could not find the requested resource")


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        if self.api.down or self.api._http is not self.server:  # a connection outlives its listener
            self._hang_up()
            return
        split = urlsplit(self.path)
        try:
            content = self.api.answer(
                self.command,
                split.path,
                parse_qs(split.query),
                json.loads(raw) if raw else None,
                self.headers.get("Content-Type", ""),
            )
            code = 201 if self.command == "POST" else 200
        except Refused as refused:
            code = refused.code
            content = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": refused.message,
                "reason": refused.reason,
                "code": code,
            }
        if self.api.lose_answers > 0:
            self.api.lose_answers -= 1
            self._hang_up()
            return
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _handle

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:
        """The calls are recorded, not printed."""
