"""Names in expressions: the named column is read, in exact case, or the spec is refused."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import FeatureError
from features.build import build_features
from features.reads import quoted, reading
from features.spec import FeaturesConfig, columns_read
from support.feature_records import write_labelled, write_transactions

names = st.text("aAbBxX_ \"'#.äÄß0", min_size=1, max_size=6)
templates = st.sampled_from(
    [
        "sum({0}) / nullif(count(*), 0) + max({1})",
        "count(*) filter (where {0} > 1 and {1} is not null)",
        "case when max({0}) > 2 then 'a{{}}' else min({1})::varchar end -- {0}",
        "list_sum(list_transform(list({0}), x -> x + 1)) + arg_max({1}, {0})",
    ]
)


def spec_of(*features: dict, **settings) -> FeaturesConfig:
    return FeaturesConfig.model_validate({"features": features, "horizon_days": 30, "threads": 1} | settings)


def whole(name: str, **settings) -> dict:
    return {"name": name, "dtype": "float64"} | settings


@given(templates, names, names)
def test_expressions_read_the_columns_with_exactly_their_names(template, one, other):
    sql = template.format(quoted(one), quoted(other))
    assert columns_read(spec_of(whole("f", sql=sql))) == {one, other}
    aliases = {one: "first", other: "second" if other != one else "first"}
    bound = reading(sql).bound(aliases).partition(" -- ")[0]
    assert reading(bound).columns == set(aliases.values())


def test_computed_columns_are_not_columns_of_the_source():
    logs = spec_of(
        whole("a", sql="min(age_days) + max(gap_days) + sum(amount)"),
        whole("b", sql="count(*) filter (Shop = 'web')"),
    )
    assert columns_read(logs) == {"Shop"}
    table = spec_of(whole("amount"), whole("b", sql="year(event_timestamp) - born"))
    assert columns_read(table, "labelled") == {"amount", "born"}


spellings = st.sampled_from(["v", "V", "value", "Value", "VALUE", "Target", "x y", "X y", "#", "c0"])


@settings(max_examples=40, deadline=None)
@given(st.lists(spellings, min_size=1, max_size=6, unique=True), st.data())
def test_of_columns_that_differ_in_case_the_named_one_is_read(columns, data):
    """Each column contains a different number; every feature has to read the one of its name."""
    names = data.draw(st.lists(st.sampled_from(columns), min_size=1, max_size=4))
    days = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"], utc=True)
    own = {name: [100.0 * (place + 1)] * 3 for place, name in enumerate(columns)}
    keys = {"user_id": ["u_a", "u_b", "u_c"], "event_timestamp": days, "target": [0, 1, 0]}
    table = pd.DataFrame(keys | own)
    log = pd.DataFrame({"user_id": "u_a", "timestamp": days, "amount": 1.0, "quantity": 1.0} | own)
    expected = {f"f{place}": own[name][0] for place, name in enumerate(names)}
    with tempfile.TemporaryDirectory() as folder:
        by_row = [whole(f"f{place}", sql=quoted(name)) for place, name in enumerate(names)]
        files = write_labelled(Path(folder) / "table", table)
        build_features(spec_of(*by_row), files)
        built = pd.read_parquet(files.snapshots)[list(expected)].drop_duplicates()
        assert built.to_dict("records") == [expected]
        by_log = [whole(f"f{place}", sql=f"max({quoted(name)})") for place, name in enumerate(names)]
        files = write_transactions(Path(folder) / "log", log)
        build_features(spec_of(*by_log), files, as_of=[datetime(2020, 2, 15, tzinfo=UTC)], labels=False)
        assert pd.read_parquet(files.snapshots)[list(expected)].to_dict("records") == [expected]


def test_a_further_column_amount_in_another_case(tmp_path):
    """A source may have `Amount`, and map another column to the standard `amount`."""
    log = pd.DataFrame(
        {
            "user_id": ["u_a", "u_a"],
            "timestamp": pd.to_datetime(["2020-01-01", "2020-01-05"], utc=True),
            "amount": [1.0, 2.0],
            "quantity": [1.0, 1.0],
            "Amount": [10.0, 20.0],
            "Quantity": [100, 200],
        }
    )
    files = write_transactions(tmp_path, log)
    sums = [whole(f"of_{place}", sql=f"sum({name})") for place, name in enumerate(log.columns[2:])]
    moment = [datetime(2020, 1, 6, tzinfo=UTC)]
    build_features(spec_of(*sums), files, as_of=moment, labels=False)
    assert pd.read_parquet(files.snapshots).iloc[0, 3:].tolist() == [3.0, 2.0, 30.0, 300.0]
    with pytest.raises(FeatureError, match=r"feature f: there is no column 'AMOUNT'; did you mean [Aa]mount"):
        build_features(spec_of(whole("f", sql="sum(AMOUNT)")), files, as_of=moment, labels=False)


def test_the_target_cannot_be_a_feature(tmp_path):
    table = pd.DataFrame(
        {
            "user_id": ["u_a", "u_b"],
            "event_timestamp": pd.to_datetime(["2020-01-01", "2020-01-01"], utc=True),
            "target": [0, 1],
            "Target": [0.5, 3.5],
        }
    )
    files = write_labelled(tmp_path, table)
    build_features(spec_of(whole("mine", sql='"Target"')), files)
    assert pd.read_parquet(files.snapshots)["mine"].tolist() == [0.5, 3.5]
    with pytest.raises(FeatureError, match="feature mine: reads the target"):
        build_features(spec_of(whole("mine", sql="target * 2")), files)


@pytest.mark.parametrize(
    "name",
    ["user_id", "event_timestamp", "created_timestamp", "churned", "entity_row", "target", "USER_ID"],
)
def test_a_feature_with_a_standard_name_is_refused(name):
    with pytest.raises(ValidationError, match=f"feature {name}: this name is reserved for a standard column"):
        spec_of(whole(name, sql="sum(amount)"))
    ratio = {"name": name, "numerator": "a", "denominator": "a"}
    with pytest.raises(ValidationError, match=f"feature {name}: this name is reserved for a standard column"):
        spec_of(whole("a"), derived=[ratio])


def test_features_that_differ_only_in_case_are_refused():
    with pytest.raises(ValidationError, match="features age and Age differ only in case; rename one"):
        spec_of(whole("age"), whole("Age"))
    with pytest.raises(ValidationError, match="features a and A differ only in case"):
        spec_of(whole("a"), derived=[{"name": "A", "numerator": "a", "denominator": "a"}])
    with pytest.raises(ValidationError, match="features named twice: age"):
        spec_of(whole("age"), whole("age"))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("count(*", r"feature f: sql: not an SQL expression \(line 1, column 7\)"),
        ("avg('open)", "feature f: sql: not an SQL expression"),
        ("(select max(amount) from read_csv('/etc/passwd'))", "feature f: sql: a query is not allowed"),
        (
            "sum(sum(amount)) over ()",
            r"feature f: sql: a window \(OVER\) is not allowed: it would read other",
        ),
        ("max(columns(*))", r"feature f: sql: name the columns; \* is allowed only in count"),
        ("date_diff('day', max(timestamp), now())", "feature f: sql: clock and random functions"),
        ("max(amount) as a", "feature f: sql: a name"),
        ("max(amount); drop table log", "feature f: sql: not one expression"),
    ],
)
def test_an_invalid_expression_is_refused_when_the_spec_is_read(sql, message):
    with pytest.raises(ValidationError, match=message):
        spec_of(whole("f", sql=sql))
