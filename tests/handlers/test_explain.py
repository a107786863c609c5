"""Attributions are compared with Shapley's definition, computed here over all orders of the players."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handlers.scoring.coalitions import EXACT
from handlers.scoring.explain import Explainer, NoReference


def spec(*features: tuple[str, str], derived: tuple[tuple[str, str, str], ...] = ()) -> dict[str, Any]:
    return {
        "features": [{"name": n, "dtype": t, "description": f"the {n}"} for n, t in features],
        "derived": [
            {"name": n, "numerator": over, "denominator": under, "floor": 1.0} for n, over, under in derived
        ],
    }


SMALL = spec(
    ("orders", "int64"), ("months", "float64"), ("spend", "float64"), ("segment", "string"),
    derived=(("frequency", "orders", "months"),),
)  # fmt: skip
REFERENCE = {"orders": 2, "months": 6.0, "spend": None, "segment": "gold"}


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-log_odds))


def small_log_odds(columns: Any) -> NDArray[np.float64]:
    """Contains interactions, a missing value that has an effect, and a category."""
    orders, months, spend = (np.asarray(columns[n], dtype=float) for n in ("orders", "months", "spend"))
    frequency = np.asarray(columns["frequency"], dtype=float)
    silver = np.array([s == "silver" for s in columns["segment"]])
    spent = np.where(np.isnan(spend), -1.0, np.log1p(np.nan_to_num(spend)))
    rate = np.nan_to_num(frequency, nan=3.0)
    return 0.3 * orders - rate * spent + np.where(silver, np.nan_to_num(months) / 4, 0.5) - 0.2 * spent**2


def by_definition(customer: dict[str, Any], reference: dict[str, Any], log_odds: Any) -> dict[str, float]:
    """The mean, over all orders, of the change when a feature changes from the reference to the customer's
    value.
    """

    def worth(values: dict[str, Any]) -> float:
        over, under = values["orders"], values["months"]
        values = values | {"frequency": None if under is None else over / max(under, 1.0)}
        return float(log_odds({name: [value] for name, value in values.items()})[0])

    shares = dict.fromkeys(reference, 0.0)
    orders = list(permutations(reference))
    for order in orders:
        values = dict(reference)
        before = worth(values)
        for name in order:
            values[name] = customer[name]
            after = worth(values)
            shares[name] += (after - before) / len(orders)
            before = after
    return shares


CUSTOMERS = [
    {"orders": 9, "months": 12.0, "spend": 80.5, "segment": "silver"},
    {"orders": 0, "months": None, "spend": 3.0, "segment": None},
    {"orders": 2, "months": 0.1, "spend": None, "segment": "never seen"},
]


def columns_of(customers: list[dict[str, Any]]) -> dict[str, list[Any]]:
    columns = {name: [customer[name] for customer in customers] for name in REFERENCE}
    columns["frequency"] = [
        None if c["months"] is None else c["orders"] / max(c["months"], 1.0) for c in customers
    ]
    return columns


def test_attributions_are_shapley_values_and_derived_features_count_for_their_parts() -> None:
    explainer = Explainer(lambda columns: sigmoid(small_log_odds(columns)), SMALL, REFERENCE)
    columns = columns_of(CUSTOMERS)
    explained = explainer.explain(columns, [0, 1, 2])
    for row, (customer, why) in enumerate(zip(CUSTOMERS, explained, strict=True)):
        expected = by_definition(customer, REFERENCE, small_log_odds)
        assert why.attributions == pytest.approx(expected, abs=1e-9)
        assert why.method == "exact"
        assert why.additivity_gap < 1e-9
        assert why.log_odds == pytest.approx(small_log_odds(columns)[row], abs=1e-9)
    assert explained[2].attributions["orders"] == 0.0  # equals the reference
    alone = explainer.explain(columns, [1])
    assert alone == explained[1:2]


def test_sampled_attributions_of_many_features_are_near_the_exact_ones_and_add_up() -> None:
    names = [f"x{i}" for i in range(EXACT + 4)]
    draws = np.random.default_rng(5)
    linear, crossed = draws.normal(size=len(names)), draws.normal(size=len(names) - 1) * 0.3

    def log_odds(columns: Any) -> NDArray[np.float64]:
        x = np.stack([np.asarray(columns[name], dtype=float) for name in names], axis=1)
        return x @ linear + (x[:, 1:] * x[:, :-1]) @ crossed

    customer = draws.normal(size=len(names))
    # Shapley values in closed form: each of x1 and x2 gets half of the product x1 x2; the reference is 0.
    exact = customer * linear
    pairs = customer[1:] * customer[:-1] * crossed / 2
    exact[1:] += pairs
    exact[:-1] += pairs
    explainer = Explainer(
        lambda columns: sigmoid(log_odds(columns)),
        spec(*((name, "float64") for name in names)),
        dict.fromkeys(names, 0.0),
    )
    columns = {name: [value] for name, value in zip(names, customer.tolist(), strict=True)}
    [why] = explainer.explain(columns, [0])
    assert why.method == "permutation"
    assert why.additivity_gap < 1e-9
    # In pairs of an order and its reverse the errors of products cancel.
    assert list(why.attributions.values()) == pytest.approx(exact.tolist(), abs=1e-6)
    assert explainer.explain(columns, [0]) == [why], "the second call used other permutations"


def test_reasons_contain_value_reference_and_direction() -> None:
    explainer = Explainer(lambda columns: sigmoid(small_log_odds(columns)), SMALL, REFERENCE)
    columns = columns_of(CUSTOMERS)
    for row, why in enumerate(explainer.explain(columns, [0, 1, 2])):
        reasons = explainer.reasons(columns, row, why, 10)
        ranked = sorted(why.attributions.values(), key=abs, reverse=True)
        directions = ["raises" if value > 0 else "lowers" for value in ranked if abs(value) > 1e-6]
        assert [reason.split()[-3] for reason in reasons] == directions
        assert explainer.reasons(columns, row, why, 1) == reasons[:1]
    first = explainer.reasons(columns, 0, explainer.explain(columns, [0])[0], 10)
    assert "the spend: 80.5 (usually unknown) lowers the risk" in first
    assert (
        "the orders: 9 (usually 2) lowers the risk" in first
        or "the orders: 9 (usually 2) raises the risk" in first
    )


def test_a_customer_equal_to_the_reference_has_no_reasons() -> None:
    explainer = Explainer(lambda columns: sigmoid(small_log_odds(columns)), SMALL, REFERENCE)
    columns = columns_of([REFERENCE])
    [why] = explainer.explain(columns, [0])
    assert set(why.attributions.values()) == {0.0}
    assert why.base_log_odds == why.log_odds
    assert explainer.reasons(columns, 0, why, 3) == []


def test_scores_of_0_and_1_have_finite_log_odds() -> None:
    def certain(columns: Any) -> NDArray[np.float64]:
        return np.array([1.0 if orders > 2 else 0.0 for orders in columns["orders"]])

    [why] = Explainer(certain, SMALL, REFERENCE).explain(columns_of(CUSTOMERS), [0])
    assert why.log_odds == pytest.approx(34.5, abs=0.1)
    assert why.attributions["orders"] == pytest.approx(why.log_odds - why.base_log_odds)


def test_a_reference_without_a_feature_is_named() -> None:
    with pytest.raises(NoReference, match="no reference for months"):
        Explainer(small_log_odds, SMALL, {"orders": 1}).explain(columns_of(CUSTOMERS), [0])
