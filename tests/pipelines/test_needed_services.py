"""Which feature services are needed, which changes of the spec are refused, and what may be pruned."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_deploy import HELD, PROGRAM, pack, report_of

from churn.settings import Settings, load_settings
from core.errors import ArchiveError, FeatureError, TrainingError
from core.workspace import ServiceWorkspace
from features.spec import FeaturesConfig
from features.store import apply
from pipelines.candidates import candidate_at, refuse_offline
from pipelines.in_use import BEFORE, STABLE, Use
from pipelines.prune import decide, plan_of
from pipelines.rollout import open_store
from pipelines.services import (
    decision_for,
    needed_services,
    next_name,
    registered,
    service_of_version,
)
from pipelines.steps import depends
from pipelines.verified import verified
from rollout.state import Change
from rollout.targets.target import Candidate

NOW = datetime(2026, 3, 1, tzinfo=UTC)
V1, V2 = "churn_prediction_v1", "churn_prediction_v2"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides=[f"workspace={tmp_path / 'ws'}"])


def configured(settings: Settings, **changes: Any) -> Settings:
    """The settings with another spec, as an overlay would give it."""
    content = settings.features.model_dump(mode="json", exclude={"view", "derived_view"}) | changes
    return settings.model_copy(update={"features": FeaturesConfig.model_validate(content)})


def model_of(settings: Settings, at: int = 0) -> Candidate:
    """An archive of a model of the configured spec."""
    gates = {"passed": True, "digest": report_of(PROGRAM, HELD).digest, "overrides": [], "number": at}
    archive = pack(settings, gates, name=f"churn-{at}", spec=settings.features.contract(), online="sqlite")
    return candidate_at(archive)


def served(settings: Settings, candidate: Candidate) -> None:
    store, model = open_store(settings), settings.serving.model_name
    at = NOW + timedelta(minutes=len(store.all(model)))  # the newest change is the one that holds
    store.served_at_once(model, Change(candidate, store.stable(model), "ada", at, "a test"))


def names(settings: Settings) -> list[str]:
    return [one.name for one in needed_services(settings)]


def test_before_anything_serves_only_the_configured_service_is_needed(settings: Settings) -> None:
    [only] = needed_services(settings)
    assert only.spec is settings.features and only.files == settings.files
    assert not settings.files.root.exists()  # no database was made by looking


def test_the_service_of_what_serves_stays_needed_and_its_features_have_a_folder(settings: Settings) -> None:
    stable = model_of(settings)
    served(settings, stable)
    later = configured(settings, service=V2, horizon_days=60)
    first, second = needed_services(later)
    assert (first.name, second.name) == (V2, V1)
    assert second.spec.digest() == settings.features.digest()
    assert second.files == ServiceWorkspace(settings.files.root, V1)
    assert second.files.snapshots.is_relative_to(settings.files.services / V1)
    assert second.needed_by == f"version {stable.version} (stable)"
    assert service_of_version(later, stable.version).name == V1
    assert names(settings) == [V1]


def test_the_columns_that_the_served_model_reads_stay_in_the_records(settings: Settings) -> None:
    from pipelines.context import Context

    extra = {"name": "shops", "dtype": "int64", "default": 0, "sql": "count(distinct shop)"}
    features = settings.features.model_dump(mode="json")["features"]
    with_shop = configured(settings, features=[*features, extra])
    served(with_shop, model_of(with_shop))
    later = configured(settings, service=V2)
    assert depends.columns_read(Context(later, NOW, lambda message: None)) == {"shop"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"horizon_days": 60}, "features.horizon_days changed"),
        ({"derived": []}, "feature purchase_frequency changed"),
    ],
)
def test_a_spec_that_changes_under_the_name_of_a_served_one_is_refused(
    settings: Settings, change: dict[str, Any], words: str
) -> None:
    stable = model_of(settings)
    served(settings, stable)
    with pytest.raises(FeatureError) as refusal:
        needed_services(configured(settings, **change))
    assert str(refusal.value) == (
        f"features.service {V1}: {words}, and version {stable.version} (stable) reads the spec before; give"
        f" features.service a new name, such as {V2}"
    )


def test_a_new_name_whose_view_is_taken_is_refused(settings: Settings) -> None:
    served(settings, model_of(settings))
    for key in ("view", "derived_view"):
        mine = {"view": "mine", "derived_view": "mine_derived"} | {key: getattr(settings.features, key)}
        with pytest.raises(
            FeatureError, match=rf"^features\.{key} {mine[key]}: is of service {V1}, which version"
        ):
            needed_services(configured(settings, service="spring", **mine))
    assert names(configured(settings, service=V2)) == [V2, V1]


def test_what_an_earlier_release_has_replaced_already_is_not_refused(settings: Settings) -> None:
    served(settings, model_of(settings))
    later = configured(settings, horizon_days=60)
    apply(later.features, later.files)  # as releases without the protection did
    assert names(later) == [V1]


def test_the_way_back_needs_its_service_while_that_is_registered(settings: Settings) -> None:
    first = model_of(settings)
    served(settings, first)
    apply(settings.features, settings.files)
    later = configured(settings, service=V2)
    apply(later.features, later.files)
    served(later, model_of(later, 1))
    assert names(later) == [V2, V1]
    plan = plan_of(later)
    assert plan.removed == () and BEFORE in plan.needed[V1]

    from pipelines.prune import prune

    assert prune(later, plan_of(later, V1, give_up=True)) == {V1: 0}
    assert names(later) == [V2] and list(registered(later)) == [V2]
    with pytest.raises(ArchiveError) as refusal:
        refuse_offline(later, verified(later, first.path))
    assert str(refusal.value).startswith(f"version {first.version}: reads features.service {V1} (spec ")
    assert "is not online; configure the features of this version and run" in str(refusal.value)


def test_nothing_is_pruned_while_an_archive_in_use_cannot_be_read(settings: Settings) -> None:
    served(settings, Candidate("s3://gone/churn", "f" * 64, "a" * 12))
    with pytest.raises(
        FeatureError, match=r"^version aaaaaaaaaaaa .stable.: its archive cannot be read.*restore"
    ):
        plan_of(settings)
    messages: list[str] = []
    assert len(needed_services(settings, progress=messages.append)) == 1
    assert messages[0].startswith("version aaaaaaaaaaaa (stable): its features are not updated")


def test_an_archive_that_only_a_registry_out_of_reach_may_have_stops_the_build(settings: Settings) -> None:
    """It may be what serves, whose features must not be replaced."""
    served(settings, Candidate("s3://models/churn", "f" * 64, "a" * 12))
    training = settings.training.model_copy(update={"tracking_uri": "http://127.0.0.1:1"})
    with pytest.raises(
        TrainingError, match=r"^archive ffffffffffff: is not in the workspace, and the registry"
    ):
        needed_services(settings.model_copy(update={"training": training}))


def test_what_may_be_pruned() -> None:
    serving, before = Use("1", "v", "", (STABLE,)), Use("2", "w", "", (BEFORE,))
    uses = {"new": [], "old": [serving], "older": [before], "oldest": []}
    plan = decide("new", uses)
    assert plan.removed == ("oldest",)
    assert plan.needed == {
        "new": "the settings configure it",
        "old": "version v (stable) reads it",
        "older": "version w (what a rollback returns to) reads it",
    }
    assert decide("new", uses, give_up=True).removed == ("older", "oldest")
    assert decide("new", uses, "older", give_up=True).removed == ("older",)
    for wanted, words in (
        ("new", "SERVICE new: the settings configure it; roll out another model first"),
        ("old", "SERVICE old: version v (stable) reads it; roll out another model first"),
        (
            "older",
            "SERVICE older: version w (what a rollback returns to) reads it; give up the way back with",
        ),
        ("gone", "SERVICE gone: is not in the feature store; there are: new, old, older, oldest"),
    ):
        with pytest.raises(FeatureError) as refusal:
            decide("new", uses, wanted)
        assert str(refusal.value).startswith(words)
    with pytest.raises(FeatureError, match=r"^SERVICE old"):
        decide("new", uses, "old", give_up=True)


def test_the_next_name() -> None:
    assert (next_name("a_v1"), next_name("a_v9"), next_name("spring")) == ("a_v2", "a_v10", "spring_v2")


def test_a_value_that_a_spec_lacks_is_the_default_for_all(settings: Settings) -> None:
    value: Any = settings.decision.customer_value
    assert value.column == "spend_180d"
    features = [one for one in settings.features.features if one.name != value.column]
    lacking = settings.features.model_copy(update={"features": tuple(features)})
    assert decision_for(settings, lacking).customer_value == value.default
    assert decision_for(settings, settings.features) is settings.decision
