"""The manifests of kserve/: they render, they fit the schemas, and they agree with the code."""

import re
import shutil
import subprocess
import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes.client import ApiClient

from churn.cli import parser
from churn.settings import load_settings
from features.store import ONLINE_VARIABLE, REGISTRY_VARIABLE
from handlers.records.settings import KAFKA, kafka_security
from handlers.settings import WorkerSettings, variable_of
from rollout.config import KServeConfig
from rollout.targets.kserve.knative import Knative
from rollout.targets.kserve.sizes import declared_minimum
from rollout.targets.kserve.standard import Standard
from support.kube import knative, standard
from support.kube.api_server import Object, unknown
from support.kube.cluster import FIRST, SECOND, THIRD, client, cluster, config, crd

REPOSITORY = Path(__file__).resolve().parents[2]
KSERVE = REPOSITORY / "kserve"
OVERLAYS = ("knative", "knative-hpa", "standard", "standard-fixed")
CONTROLLER = REPOSITORY / "configs" / "profiles" / "controller.yaml"
BY_CRD = {"InferenceService": "inferenceservices", "ServingRuntime": "servingruntimes"}
BY_CLIENT = {
    "Deployment": "V1Deployment",
    "Namespace": "V1Namespace",
    "NetworkPolicy": "V1NetworkPolicy",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "Service": "V1Service",
    "ServiceAccount": "V1ServiceAccount",
}
COMPONENTS = ("monitoring", "network-policy")
UNCHECKED = {"PodMonitor", "PrometheusRule", "ServiceMonitor"}
"""Of the Prometheus operator, whose schemas are not here."""
EXPORTER = ("Deployment", "NetworkPolicy", "PodMonitor")
"""Of kserve/components/monitoring; tests/kserve/test_monitoring_component.py."""


@cache
def rendered(overlay: str, *components: str, namespace: str = "") -> tuple[Object, ...]:
    """An overlay; with components or a namespace as a company's own overlay on top of it renders it."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    with TemporaryDirectory() as scratch:
        copy = shutil.copytree(KSERVE, Path(scratch) / "kserve")
        content: Object = {
            "resources": [f"../{overlay}"],
            "components": [f"../../components/{one}" for one in components],
        }
        own = copy / "overlays" / "own"
        own.mkdir()
        if namespace:
            content["namespace"] = namespace
        (own / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        done = subprocess.run(["kubectl", "kustomize", str(own)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return tuple(yaml.safe_load_all(done.stdout))


def only(overlay: str, kind: str, name: str | None = None) -> Any:
    """With all components."""
    (found,) = [
        content
        for content in rendered(overlay, *COMPONENTS)
        if content["kind"] == kind and name in (None, content["metadata"]["name"])
    ]
    return found


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_overlay_is_named_here() -> None:
    assert sorted(folder.name for folder in (KSERVE / "overlays").iterdir()) == sorted(OVERLAYS)
    assert not list(KSERVE.rglob("*.py")), "a package here would hide the kserve SDK"


def test_it_renders_with_everything_a_production_install_has(overlay: str) -> None:
    kinds = sorted(content["kind"] for content in rendered(overlay, *COMPONENTS))
    assert kinds == sorted([*BY_CRD, *BY_CLIENT, *UNCHECKED, "ServiceAccount", "NetworkPolicy", *EXPORTER])


def test_an_overlay_alone_needs_no_kind_that_a_cluster_with_kserve_lacks(overlay: str) -> None:
    kinds = {content["kind"] for content in rendered(overlay)}
    assert kinds == {*BY_CRD, *BY_CLIENT} - {"NetworkPolicy"}


@pytest.mark.parametrize("overlay", ["standard", "knative"])
def test_a_namespace_is_written_in_one_place(overlay: str) -> None:
    for content in rendered(overlay, *COMPONENTS, namespace="shop-a"):
        meta = content["metadata"]
        assert (meta["name"] if content["kind"] == "Namespace" else meta["namespace"]) == "shop-a"
        for subject in content.get("subjects", []):
            assert subject["namespace"] == "shop-a", "else the account may do nothing there"
    text = yaml.safe_dump_all(rendered(overlay, namespace="shop-a"))
    assert not re.search(r"namespace: churn\b", text)


def test_the_manifests_hold_no_field_that_a_rollout_writes(overlay: str) -> None:
    """A server-side apply of them then never meets another manager's value, and Argo CD and Flux put nothing
    back."""
    mode = "knative" if overlay.startswith("knative") else "standard"
    model: knative.Knative | standard.Standard = (
        knative.Knative() if mode == "knative" else standard.Standard()
    )
    declared = only(overlay, "InferenceService")
    with cluster(model, declared) as server:
        kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
        target = kind(config(), client(server))
        target.begin(FIRST)
        target.deploy(SECOND)
        target._cluster.wait(lambda: target.observe().detail or None, 5, "ready")
        target.set_weight(25)
        target.promote(SECOND)
        target.deploy(THIRD)
        target.rollback()
        target.tidy()
        written = [path for body in server.writes() for path in leaves(body)]
    assert written
    held = set(leaves({"spec": declared["spec"]}))
    changed = {path for path in written if path in held}
    same = {("spec", "predictor", "model", key) for key in ("modelFormat", "runtime", "protocolVersion")}
    # a promotion writes the canary's model, whose other fields are those of the manifest
    assert all(path[:4] in same for path in changed), changed


def leaves(part: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(part, dict) and part:
        return [leaf for key, value in part.items() for leaf in leaves(value, (*path, key))]
    return [path]


def test_every_kserve_object_fits_the_full_crd_strictly(overlay: str) -> None:
    for kind, plural in BY_CRD.items():
        schema = crd(plural)
        if schema is None:
            pytest.skip("KServe's CRDs are not here: set CHURN_KSERVE_CRDS to their folder")
        content = only(overlay, kind)
        assert list(Draft202012Validator(schema).iter_errors(content)) == []
        assert list(unknown(schema, content)) == []


def test_every_other_object_is_valid_for_the_kubernetes_client(overlay: str) -> None:
    """There and back through its types: a field that it does not know would be gone."""
    api = ApiClient()
    for content in rendered(overlay):
        if content["kind"] in BY_CLIENT:
            typed = api._ApiClient__deserialize(content, BY_CLIENT[content["kind"]])
            assert api.sanitize_for_serialization(typed) == content


def test_the_knative_overlays_hold_nothing_that_knative_refuses() -> None:
    for overlay in ("knative", "knative-hpa"):
        (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
        assert not {"lifecycle", "startupProbe"} & set(container)
        assert len(container["ports"]) == 1
        predictor = only(overlay, "InferenceService")["spec"]["predictor"]
        flags = {"topologySpreadConstraints", "terminationGracePeriodSeconds", "automountServiceAccountToken"}
        assert not flags & set(predictor)


@pytest.mark.parametrize("overlay", ["standard", "standard-fixed"])
def test_a_deleted_pod_ends_its_requests_once_no_gateway_knows_it(overlay: str) -> None:
    """Knative sees to it itself, and refuses these fields."""
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    predictor = only(overlay, "InferenceService")["spec"]["predictor"]
    command, waits_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert predictor["terminationGracePeriodSeconds"] >= int(waits_s) + predictor["timeout"]


def test_sizes_are_those_required() -> None:
    def scale(overlay: str) -> list[Any]:
        part = only(overlay, "InferenceService")["spec"]["predictor"]
        return [part.get(key) for key in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")]

    def declared(overlay: str) -> int:
        return declared_minimum(only(overlay, "InferenceService"))

    assert scale("knative") == [3, 10, "concurrency", 16]
    assert scale("knative-hpa") == [2, 10, "cpu", 70]
    assert scale("standard") == [None, 10, "cpu", 70]
    assert scale("standard-fixed") == [None, None, None, None]
    assert [declared(overlay) for overlay in OVERLAYS] == [3, 2, 2, 3]


def test_names_are_those_of_the_code(overlay: str) -> None:
    runtime, service = only(overlay, "ServingRuntime"), only(overlay, "InferenceService")
    settings = yaml.safe_load((REPOSITORY / "configs" / "rollout.yaml").read_text(encoding="utf-8"))
    named = KServeConfig.model_validate(settings["kserve"])
    assert runtime["metadata"]["name"] == service["spec"]["predictor"]["model"]["runtime"] == named.runtime
    assert service["metadata"]["name"] == named.name
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    (container,) = runtime["spec"]["containers"]
    assert container["image"].rpartition("/")[2] == f"churn-serve:{version}"
    assert "IMAGES ?= churn-serve churn-train\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    gateway = yaml.safe_load((REPOSITORY / "configs" / "gateway.yaml").read_text(encoding="utf-8"))
    assert service["spec"]["predictor"]["timeout"] == gateway["timeout_s"]


def test_ports_and_probes_are_those_of_the_image(overlay: str) -> None:
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    properties = (REPOSITORY / "configs" / "torchserve" / "kserve.properties").read_text(encoding="utf-8")
    port = container["ports"][0]["containerPort"]
    start = (REPOSITORY / "images" / "start_serve.py").read_text(encoding="utf-8")
    assert f'LISTEN = "0.0.0.0:{port}"' in start
    assert container["livenessProbe"]["httpGet"]["port"] == port
    metrics = only(overlay, "Service")["spec"]["ports"][0]["targetPort"]
    assert f"metrics_address=http://0.0.0.0:{metrics}\n" in properties
    assert only(overlay, "ServingRuntime")["spec"]["annotations"]["prometheus.io/port"] == str(metrics)
    dockerfile = (REPOSITORY / "Dockerfile.serve").read_text(encoding="utf-8")
    if overlay.startswith("knative"):
        probe = container["readinessProbe"]["exec"]["command"]
        assert str(probe).replace("'", '"') in dockerfile, "the image's own health check"
    else:
        probed = container["readinessProbe"]["httpGet"]
        ready = (REPOSITORY / "images" / "ready.py").read_text(encoding="utf-8")
        assert f'LISTEN = "0.0.0.0:{probed["port"]}"' in ready and f'PATH = "{probed["path"]}"' in ready
        assert container["startupProbe"]["httpGet"] == probed
    assert "management_address=http://127.0.0.1:" in properties
    # who may reach what: never management
    open_ports = {
        part["port"]
        for rule in only(overlay, "NetworkPolicy", "churn-predictor")["spec"]["ingress"]
        for part in rule["ports"]
    }
    assert not {8081, 7071} & open_ports
    # and no host is reachable that the platform has not named
    assert all(rule.get("to") for rule in only(overlay, "NetworkPolicy", "churn-predictor")["spec"]["egress"])


def test_the_server_gets_the_environment_that_it_reads(overlay: str) -> None:
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    given = {part["name"] for part in container["env"]}
    files = [*(REPOSITORY / "handlers").rglob("*.py"), REPOSITORY / "images" / "start_serve.py"]
    settings = {variable_of(setting.name) for setting in fields(WorkerSettings)}
    read = " ".join([*settings, *(file.read_text(encoding="utf-8") for file in files)])
    needed = {ONLINE_VARIABLE, REGISTRY_VARIABLE, "CHURN_MASK_KEY", "CHURN_TRUSTED_SIGNERS"}
    assert {*needed, KAFKA} <= given
    ours = given - {ONLINE_VARIABLE, REGISTRY_VARIABLE}
    # handlers/records/settings.py lists the variables beside CHURN_PREDICTION_LOG_KAFKA by their ends
    assert all(name in read or name.replace(KAFKA, "..._KAFKA") in read for name in ours)
    # a pod starts without a prediction log, and while no key is replaced
    optional = {
        part["name"]
        for part in container["env"]
        for source in part.get("valueFrom", {}).values()
        if source.get("optional")
    }
    assert given - optional == {*needed, "CHURN_STORE_TIMEOUT_MS"}


def test_a_pod_with_all_of_these_variables_has_a_log_over_tls(overlay: str) -> None:
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    values = {
        KAFKA: "broker:9093/predictions",
        f"{KAFKA}_SECURITY": "sasl_ssl",
        f"{KAFKA}_MECHANISM": "SCRAM-SHA-256",
        f"{KAFKA}_CA": __file__,
        f"{KAFKA}_USER": "me",
        f"{KAFKA}_PASSWORD": "secret",
    }
    given = {part["name"] for part in container["env"] if part["name"].startswith(KAFKA)}
    assert given == set(values)
    security = kafka_security(values)
    assert (security["security.protocol"], security["sasl.mechanisms"]) == ("sasl_ssl", "SCRAM-SHA-256")
    egress = only(overlay, "NetworkPolicy", "churn-predictor")["spec"]["egress"]
    assert {9092, 9093} <= {part["port"] for rule in egress for part in rule["ports"]}


def test_no_file_holds_a_secret(overlay: str) -> None:
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    by_reference = {part["name"] for part in container["env"] if "secretKeyRef" in part.get("valueFrom", {})}
    secrets = {"CHURN_MASK_KEY", "CHURN_MASK_KEY_PREVIOUS", f"{KAFKA}_USER", f"{KAFKA}_PASSWORD"}
    assert by_reference == {ONLINE_VARIABLE, REGISTRY_VARIABLE, *secrets}
    assert all(content["kind"] != "Secret" for content in rendered(overlay))
    for file in KSERVE.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(stringData|data)\s*:", text, re.M), file
        assert not re.search(r"secretGenerator|AKIA|BEGIN [A-Z ]*PRIVATE KEY|://[^/\s]+:[^/\s]+@", text), file


def test_a_pod_may_do_nothing_that_it_need_not(overlay: str) -> None:
    (container,) = only(overlay, "ServingRuntime")["spec"]["containers"]
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]  # noqa: S108
    assert set(container["resources"]) == {"requests", "limits"}
    selectors = [
        only(overlay, "NetworkPolicy", "churn-predictor")["spec"]["podSelector"]["matchLabels"],
        only(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(overlay, "Service")["spec"]["selector"],
    ]
    assert selectors == [{"serving.kserve.io/inferenceservice": "churn"}] * 3


def test_the_controller_starts_by_its_manifest_and_answers_its_probes(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = only(overlay, "Deployment", "churn-rollout")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    values = {part["name"]: part.get("value", f"sqlite:///{part['name']}.db") for part in container["env"]}
    named = set(re.findall(r"\$\{(\w+)\}", CONTROLLER.read_text(encoding="utf-8")))
    assert set(values) == {*named, "NAMESPACE"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    # Kubernetes puts the pod's own namespace there
    words = [word.replace("$(NAMESPACE)", "shop-a") for word in container["args"]]
    arguments = parser().parse_args(words)
    assert arguments.act.__name__ == "run"
    settings = load_settings(
        arguments.profile, overrides=[*arguments.overrides, *getattr(arguments, "overrides_of_command", [])]
    )
    mode = "knative" if overlay.startswith("knative") else "standard"
    assert (settings.rollout.target, settings.rollout.kserve.name) == (mode, "churn")
    assert settings.rollout.kserve.prometheus_url
    assert settings.rollout.kserve.namespace == "shop-a"
    (port,) = container["ports"]
    assert settings.rollout.health_address == f"0.0.0.0:{port['containerPort']}"
    probes = [container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    assert [probe["path"] for probe in probes] == ["/livez", "/readyz", "/livez"]
    assert {probe["port"] for probe in probes} == {port["name"]}
    assert pod["spec"]["serviceAccountName"] == only(overlay, "RoleBinding")["subjects"][0]["name"]
    security = container["securityContext"] | pod["spec"]["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    labels = pod["metadata"]["labels"].items()
    for selector in (
        only(overlay, "PodMonitor", "churn-rollout")["spec"]["selector"],
        only(overlay, "NetworkPolicy", "churn-rollout")["spec"]["podSelector"],
        only(overlay, "Deployment", "churn-rollout")["spec"]["selector"],
    ):
        assert selector["matchLabels"].items() <= labels
    assert (
        only(overlay, "PodMonitor", "churn-rollout")["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]
    )
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert container["image"].rpartition("/")[2] == f"churn-train:{version}"
    assert "IMAGES ?= churn-serve churn-train\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_the_production_profile_shares_its_rollouts_with_the_controller() -> None:
    production = yaml.safe_load((CONTROLLER.parent / "production.yaml").read_text(encoding="utf-8"))
    controller = yaml.safe_load(CONTROLLER.read_text(encoding="utf-8"))
    assert controller["rollout"].items() <= production["rollout"].items()
    assert controller["training"].items() <= production["training"].items()
    assert production["rollout"]["store"] == "${CHURN_MODEL_STORE}"
    images = (REPOSITORY / "Dockerfile.train").read_text(encoding="utf-8")
    assert "['optional-dependencies']['postgres']" in images


def test_prometheus_scrapes_the_service_of_the_workers() -> None:
    monitor = only("standard", "ServiceMonitor")["spec"]
    service = only("standard", "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whole_rollouts_run_from_the_overlay_with_its_role_and_use_all_of_it(overlay: str) -> None:
    def slow(uri: str) -> int:
        return 12  # steps, so that the target looks at pods that are not ready

    mode = "knative" if overlay.startswith("knative") else "standard"
    model: knative.Knative | standard.Standard = (
        knative.Knative(ready_after=slow) if mode == "knative" else standard.Standard(ready_after=slow)
    )
    rules = only(overlay, "Role")["rules"]
    with cluster(model, only(overlay, "InferenceService")) as server:
        server.rules = rules
        kind: type[Knative | Standard] = Knative if mode == "knative" else Standard
        target = kind(config(), client(server))
        target.begin(FIRST)
        for candidate in (SECOND, THIRD):
            target.deploy(candidate)
            target._cluster.wait(lambda: target.observe().detail or None, 5, "ready")
            for weight in (0, 1, 25, 100):
                target.set_weight(weight)
            target.promote(candidate)
        target.restore(SECOND)
        target.deploy(FIRST)
        target.rollback()
        target.tidy()
        assert target.observe().stable == SECOND.sha256
        assert not [call for call in server.calls if call.code not in (200, 404, 409)]
        used = {(call.verb, call.group, call.plural) for call in server.calls if call.code == 200}
    allowed = {
        (verb, group, plural)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    }
    # without autoscalers none is left behind, but by an overlay that was here before
    unused = {("delete", "autoscaling", "horizontalpodautoscalers")} if overlay == "standard-fixed" else set()
    assert used == allowed - unused
    named = {rule["resources"][0]: rule.get("resourceNames") for rule in rules}
    assert named["inferenceservices"] == ["churn"]
    (subject,) = only(overlay, "RoleBinding")["subjects"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", "churn-rollout")
