"""kserve/components/jobs, stream and stream-monitoring: they render, and each pod starts by its manifest."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient
from test_manifests import rendered

from churn.cli import parser
from churn.settings import load_settings
from core.layers import CONFIGS
from monitoring.rules import OF_A_STREAM, RULES, STREAM_OBJECT, as_yaml, prometheus_rule
from pipelines.score_parts import Part
from support.alert_rules import rules

COMPONENTS = ("jobs", "stream", "stream-monitoring")
JOBS = ("churn-check", "churn-merge", "churn-retrain", "churn-score", "churn-tune")
REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = (CONFIGS / "profiles" / "production.yaml").read_text(encoding="utf-8")
CLASSES = {
    "CronJob": "V1CronJob",
    "Deployment": "V1Deployment",
    "NetworkPolicy": "V1NetworkPolicy",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "PodDisruptionBudget": "V1PodDisruptionBudget",
    "RoleBinding": "V1RoleBinding",
    "ServiceAccount": "V1ServiceAccount",
}


def added() -> list[Any]:
    """What the components add to an overlay."""
    alone = {(one["kind"], one["metadata"]["name"]) for one in rendered("standard", namespace="shop")}
    everything = rendered("standard", *COMPONENTS, namespace="shop")
    return [one for one in everything if (one["kind"], one["metadata"]["name"]) not in alone]


def of(kind: str, name: str) -> Any:
    (found,) = [one for one in added() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def job(name: str) -> Any:
    return of("CronJob", name)["spec"]["jobTemplate"]["spec"]


def pods() -> dict[str, Any]:
    """Name -> pod template."""
    return {
        **{name: job(name)["template"] for name in JOBS},
        "churn-stream": of("Deployment", "churn-stream")["spec"]["template"],
    }


def settings_of(pod: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Any, Any]:
    """What the command line of the pod's container is parsed to, with the profile's variables set."""
    (container,) = pod["spec"]["containers"]
    for name in re.findall(r"\$\{(\w+)\}", PROFILE):
        monkeypatch.setenv(name, f"postgresql+psycopg://{name.lower()}/x")
    monkeypatch.setenv("CHURN_ROLLOUT_TARGET", "standard")
    monkeypatch.setenv("CHURN_PROMETHEUS", "http://prometheus:9090")
    (tmp_path / "settings.yaml").write_text("tuning: {trials: 3}\n")
    values = {one["name"]: one.get("value", "shop") for one in container["env"]} | {
        "JOB_COMPLETION_INDEX": "0"
    }
    words = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], word) for word in container["args"]]
    words = [
        str(tmp_path / "settings.yaml") if word == "/etc/churn/settings.yaml" else word for word in words
    ]
    parsed = parser().parse_args(words)
    places = ("", "_of_group", "_of_command")  # as churn/cli.py gathers them
    config = [one for place in places for one in getattr(parsed, f"config{place}", [])]
    overrides = [one for place in places for one in getattr(parsed, f"overrides{place}", [])]
    return parsed, load_settings(parsed.profile, config, overrides)


def test_every_object_is_valid_for_the_kubernetes_client_and_in_the_overlay_s_namespace() -> None:
    """There and back through its types: a field that it does not know would be gone."""
    api = ApiClient()
    for one in added():
        assert one["metadata"]["namespace"] == "shop"
        if one["kind"] in CLASSES:
            typed = api._ApiClient__deserialize(one, CLASSES[one["kind"]])
            assert api.sanitize_for_serialization(typed) == one
    assert {one["kind"] for one in added()} == {*CLASSES, "PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize("name", [*JOBS, "churn-stream"])
def test_a_pod_may_do_nothing_that_it_need_not(name: str) -> None:
    pod = pods()[name]["spec"]
    (container,) = pod["containers"]
    security = pod["securityContext"] | container["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]} and not security["allowPrivilegeEscalation"]
    assert container["image"] == "registry.example.com/churn-train:1.0.0"
    assert {"requests", "limits"} == set(container["resources"])
    assert pod["automountServiceAccountToken"] is (name == "churn-retrain")


@pytest.mark.parametrize("name", [*JOBS, "churn-stream"])
def test_it_starts_by_its_manifest_with_the_production_profile(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parsed, settings = settings_of(pods()[name], monkeypatch, tmp_path)
    assert parsed.profile == "production"
    assert settings.tuning.trials == 3, "the company's own settings are laid over the profile"
    if name in ("churn-check", "churn-retrain"):
        assert settings.rollout.kserve.namespace == "shop"


def test_every_variable_of_the_profile_is_in_a_manifest_or_named_by_the_document() -> None:
    """Secrets are named and never written; those of the Secret churn-production are the document's."""
    text = (REPOSITORY / "docs" / "how-to" / "jobs.md").read_text(encoding="utf-8")
    for pod in pods().values():
        (container,) = pod["spec"]["containers"]
        given = {one["name"] for one in container["env"]}
        assert container["envFrom"] == [{"secretRef": {"name": "churn-production"}}]
        for variable in set(re.findall(r"\$\{(\w+)\}", PROFILE)) - given:
            assert variable in text, variable
        secret = [one for one in container["env"] if "valueFrom" in one]
        assert all("value" not in one for one in secret)
        written = {one["name"] for one in container["env"] if "value" in one}
        assert written <= {"CHURN_WORKSPACE", "PARTS"}


def test_the_parts_of_the_scores_are_the_indexes_of_the_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = job("churn-score")
    parsed, _ = settings_of(spec["template"], monkeypatch, tmp_path)
    assert Part(*parsed.part) == Part(0, spec["completions"])
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] <= spec["completions"]
    merge, _ = settings_of(job("churn-merge")["template"], monkeypatch, tmp_path)
    assert merge.merge and merge.out == parsed.out


def test_one_pod_that_finds_all_trials_finished_ends_the_study_s_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = job("churn-tune")
    parsed, _ = settings_of(spec["template"], monkeypatch, tmp_path)
    assert parsed.shared
    assert spec["successPolicy"] == {"rules": [{"succeededCount": 1}]}
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a policy of pod failures needs it"


def test_only_daily_work_begins_by_itself() -> None:
    suspended = {name for name in JOBS if of("CronJob", name)["spec"].get("suspend")}
    assert suspended == {"churn-tune", "churn-score", "churn-merge"}


def test_retraining_has_the_rights_of_the_rollouts_controller() -> None:
    binding = of("RoleBinding", "churn-jobs")
    assert binding["roleRef"]["name"] == "churn-rollout"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "churn-jobs", "namespace": "shop"}]
    assert pods()["churn-retrain"]["spec"]["serviceAccountName"] == "churn-jobs"


def test_the_stream_s_ports_labels_and_rules_fit_together() -> None:
    pod = pods()["churn-stream"]
    (container,) = pod["spec"]["containers"]
    (port,) = container["ports"]
    assert f"stream.address=0.0.0.0:{port['containerPort']}" in container["args"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]
    policy = of("NetworkPolicy", "churn-stream")["spec"]
    assert policy["ingress"][0]["ports"][0]["port"] == port["containerPort"]
    monitor = of("PodMonitor", "churn-stream")["spec"]
    assert monitor["podMetricsEndpoints"][0]["port"] == port["name"]
    budget = of("PodDisruptionBudget", "churn-stream")["spec"]
    for selector in (policy["podSelector"], monitor["selector"], budget["selector"]):
        assert selector["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert STREAM_OBJECT.read_text(encoding="utf-8") == as_yaml(prometheus_rule("churn-stream", OF_A_STREAM))
    groups = yaml.safe_load(STREAM_OBJECT.read_text(encoding="utf-8"))["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == list(rules(RULES / "stream.yml"))
