"""The spec's policies on old, missing and unknown features."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from features.spec import Feature, FeaturesConfig
from handlers.store.policies import Policies, Vectors
from handlers.store.stored import Stored
from support.servers.online_stores import NOW, SPEC

FRESH, OLD = NOW - timedelta(days=1), NOW - timedelta(days=36)


def applied(moments: list[datetime | None], spec: FeaturesConfig = SPEC, **values: Any) -> Vectors:
    """The vectors of customers with 3 orders, 10.0 spent in 2.0 months and so on, except for `values`."""
    whole = {
        "orders": 3,
        "spend": 10.0,
        "tenure": 2.0,
        "segment": "gold",
        "visits": 1,
        "town": "Oslo",
    } | values
    columns = {
        name: [value if moment is not None else None for moment in moments] for name, value in whole.items()
    }
    ids = [f"u{number}" for number in range(len(moments))]
    return Policies(spec.contract()).apply(ids, Stored(columns, list(moments)), NOW)


def with_policy(name: str, policy: str, **view: str) -> FeaturesConfig:
    features = tuple(
        f.model_copy(update={"on_missing": policy}) if f.name == name else f for f in SPEC.features
    )
    return SPEC.model_copy(update={"features": features, **view})


def test_a_complete_fresh_vector_is_not_changed() -> None:
    vectors = applied([FRESH])
    assert vectors.status == ("ok",)
    assert (vectors.reasons, vectors.missing) == ((), {})
    assert {name: column[0] for name, column in vectors.columns.items()} == {
        **{"orders": 3, "spend": 10.0, "tenure": 2.0, "segment": "gold", "visits": 1, "town": "Oslo"},
        "spend_a_month": 5.0,
    }


@pytest.mark.parametrize(
    ("moment", "status"),
    [
        (NOW - SPEC.ttl, "ok"),
        (NOW - SPEC.ttl - timedelta(microseconds=1), "stale"),
        (NOW + timedelta(minutes=5), "ok"),
        (NOW + timedelta(minutes=5, microseconds=1), "stale"),
    ],
)
def test_a_vector_is_fresh_from_the_ttl_to_the_tolerance_of_clocks(moment: datetime, status: str) -> None:
    assert applied([moment]).status == (status,)


def test_the_reason_states_the_age_or_the_time_in_the_future() -> None:
    vectors = applied([OLD, NOW + timedelta(hours=1), None])
    assert vectors.reasons == (
        "features are 36 days old, more than the 35 that the spec allows",
        "features are dated 3600 s in the future: a clock is wrong",
        "this customer is not in the feature store",
    )


def test_stale_features_are_used_refused_or_replaced() -> None:
    given = {
        policy: applied([OLD, FRESH], SPEC.model_copy(update={"on_stale": policy}))
        for policy in ("degrade", "refuse", "default")
    }
    assert [vectors.status for vectors in given.values()] == [
        ("stale", "ok"),
        ("refused", "ok"),
        ("stale", "ok"),
    ]
    assert [vectors.columns["spend"] for vectors in given.values()] == [
        [10.0, 10.0],
        [None, 10.0],
        [None, 10.0],
    ]
    assert given["default"].columns["orders"] == [0, 3]
    assert given["default"].columns["town"] == ["nowhere", "Oslo"]
    assert given["default"].columns["spend_a_month"] == [None, 5.0]


def test_a_cold_start_is_every_default_or_null() -> None:
    vectors = applied([None, FRESH], SPEC.model_copy(update={"on_unknown": "score"}))
    assert vectors.status == ("unknown", "ok")
    assert [column[0] for column in vectors.columns.values()] == [0, None, None, None, 0, "nowhere", None]
    assert vectors.missing == {}
    refused = applied([None])
    assert {column[0] for column in refused.columns.values()} == {None}


@pytest.mark.parametrize(
    ("name", "policy", "status", "value"),
    [
        ("town", "default", "ok", "nowhere"),
        ("spend", "default", "ok", None),
        ("spend", "degrade", "degraded", None),
        ("town", "degrade", "degraded", None),
        ("spend", "refuse", "refused", None),
    ],
)
def test_a_missing_feature_follows_its_policy(name: str, policy: str, status: str, value: Any) -> None:
    vectors = applied([FRESH, None], with_policy(name, policy), **{name: None})
    assert vectors.status == (status, "unknown")
    assert vectors.columns[name][0] == value
    assert vectors.missing == {name: 1}
    assert vectors.reasons[0] == (None if status == "ok" else f"{name} is missing")


def test_the_reasons_of_an_old_and_incomplete_vector_are_both_reported() -> None:
    vectors = applied([OLD], with_policy("spend", "degrade"), spend=None)
    assert vectors.status == ("stale",)
    assert vectors.reasons[0] is not None
    assert vectors.reasons[0].endswith("that the spec allows; spend is missing")


def test_a_refused_customer_has_no_features() -> None:
    vectors = applied([FRESH], with_policy("spend", "refuse"), spend=None)
    assert {column[0] for column in vectors.columns.values()} == {None}


def test_policies_are_part_of_the_contract_and_of_its_digest() -> None:
    contract = SPEC.contract()
    assert {key: contract[key] for key in ("on_stale", "on_unknown", "when_down")} == {
        "on_stale": "degrade",
        "on_unknown": "refuse",
        "when_down": "last_known",
    }
    assert {feature["on_missing"] for feature in contract["features"]} == {"default"}
    others = [
        SPEC.model_copy(update={"on_stale": "refuse"}),
        SPEC.model_copy(update={"on_unknown": "score"}),
        SPEC.model_copy(update={"when_down": "refuse"}),
        with_policy("town", "refuse"),
    ]
    assert len({SPEC.digest(), *(other.digest() for other in others)}) == 5


@pytest.mark.parametrize("key", ["on_stale", "on_unknown", "when_down"])
def test_an_unknown_policy_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        FeaturesConfig.model_validate(SPEC.model_dump() | {key: "shrug"})
    with pytest.raises(ValidationError, match="on_missing"):
        Feature.model_validate({"name": "a", "dtype": "float64", "on_missing": "shrug"})
