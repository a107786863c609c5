"""Orders, returns and copies in the records of a log, compared with a reference in pandas."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.workspace import Workspace
from data.ingest import ingest
from data.prepare import parts as parts_module
from data.prepare import staging
from data.records.folder import parts, read
from handlers.identity import mask
from support.data_tables import AS_OF, KEY, Configure, Ingest

LINES = {
    "user_id": "customer",
    "timestamp": "when",
    "amount": "paid",
    "quantity": "n",
    "order_id": "order",
}


def lines_of(rng: np.random.Generator, orders: int) -> pd.DataFrame:
    """Order lines of few customers and days, with returns, equal lines and equal times."""
    rows = []
    for order in range(orders):
        customer = f"c{rng.integers(0, 9)}"
        for _ in range(rng.integers(1, 5)):
            back = rng.random() < 0.2
            quantity = int(rng.integers(1, 4)) * (-1 if back else 1)
            minute = pd.Timestamp("2024-01-01") + pd.Timedelta(minutes=int(rng.integers(0, 2000)))
            name = f"o{order}" if rng.random() < 0.9 else None
            rows.append(
                (customer, minute, round(quantity * float(rng.integers(1, 5)) / 4, 2), quantity, name)
            )
    return pd.DataFrame(rows, columns=["customer", "when", "paid", "n", "order"])


def expected_orders(lines: pd.DataFrame) -> pd.DataFrame:
    """In pandas: one row per customer, order and kind; a line without an order is a separate row."""
    lines = lines.assign(is_return=(lines["paid"] < 0) | (lines["n"] < 0), place=range(len(lines)))
    lines["group"] = lines["order"].where(lines["order"].notna(), "line " + lines["place"].astype(str))
    orders = lines.groupby(["customer", "group", "is_return"], as_index=False).agg(
        timestamp=("when", "min"), amount=("paid", "sum"), quantity=("n", "sum"), place=("place", "min")
    )
    orders["user_id"] = [mask(customer, KEY.encode()) for customer in orders["customer"]]
    orders = orders.sort_values(["user_id", "timestamp", "place"], ignore_index=True)
    orders["timestamp"] = orders["timestamp"].astype("datetime64[us]").dt.tz_localize("UTC")
    orders["quantity"] = orders["quantity"].astype(float)
    return orders[["user_id", "timestamp", "amount", "quantity", "is_return"]]


@pytest.mark.parametrize("seed", range(5))
def test_lines_become_orders_as_in_pandas(
    seed: int, configure: Configure, run: Ingest, files: Workspace
) -> None:
    lines = lines_of(np.random.default_rng(seed), 60)
    manifest = run(configure(lines, columns=LINES, group_by="order_id", duplicates="keep"))
    expected = expected_orders(lines)
    pd.testing.assert_frame_equal(read(files.records).to_pandas(), expected)
    buyers = expected.loc[~expected["is_return"], "user_id"].nunique()
    assert (manifest["rows"], manifest["customers"]) == (len(expected), buyers)


@settings(
    max_examples=15,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(-2, 3), st.sampled_from(["x", "y"])),
        min_size=1,
        max_size=40,
    ),
    spilled=st.booleans(),
)
def test_copies_are_dropped_as_in_pandas(
    rows: list[tuple[str, int, int, str]], spilled: bool, configure: Configure, tmp_path: Path
) -> None:
    log = pd.DataFrame(rows, columns=["customer", "day", "paid", "shop"])
    log["when"] = "2024-01-0" + log.pop("day").astype(str)
    config = configure(log, duplicates="drop", types={"shop": "string"})
    files = Workspace(tmp_path / "var")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "BYTES_IN_MEMORY", 0 if spilled else 10**9)
        patch.setattr(parts_module, "ROWS_A_PART", 5)
        manifest = ingest(config, files, AS_OF)
    assert (len(parts(files)) > 1) <= spilled
    repeated = log.duplicated()
    expected = log[~repeated].assign(
        user_id=[mask(c, KEY.encode()) for c in log.loc[~repeated, "customer"]],
        place=np.flatnonzero(~repeated),
    )
    expected = expected.sort_values(["user_id", "when", "place"])
    found = read(files.records).to_pandas()
    assert found["user_id"].tolist() == expected["user_id"].tolist()
    assert found["amount"].tolist() == expected["paid"].tolist()
    assert found["shop"].tolist() == expected["shop"].tolist()
    assert found["is_return"].tolist() == (expected["paid"] < 0).tolist()
    dropped = pq.read_table(files.rejected).to_pandas()
    assert sorted(dropped["row"]) == (np.flatnonzero(repeated) + 1).tolist()
    assert set(dropped["reason"]) <= {"duplicate"}
    assert manifest["duplicate_rows"] == repeated.sum()


REPEATED = (
    "customer,when,paid\nann,2024-01-05,10.5\nbob,2024-02-01,3\nann,2024-01-05,10.5\nann,2024-01-05,10.5\n"
)


def test_repeated_rows_are_refused_dropped_or_stored(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    with pytest.raises(DataError, match=r"2 rows equal a row above in every column.*\(first: row 3\)"):
        run(configure(REPEATED))
    assert not files.data.exists()
    assert run(configure(REPEATED, duplicates="drop"))["rows"] == 2
    assert run(configure(REPEATED, duplicates="keep"))["rows"] == 4


BY_ID = {"user_id": "customer", "timestamp": "when", "amount": "paid", "transaction_id": "order"}


@pytest.mark.parametrize("duplicates", ["refuse", "drop", "keep"])
@pytest.mark.parametrize("other", ["a,2024-01-05,20,7", "b,2024-01-05,10,7", "a,2024-01-06,10,7"])
def test_rows_of_one_transaction_that_differ_are_never_dropped(
    duplicates: str, other: str, configure: Configure, run: Ingest
) -> None:
    """Of an invoice of 10 + 20 + 30, dropping would leave 10."""
    log = f"customer,when,paid,order\na,2024-01-05,10,7\n{other}\na,2024-01-05,30,8\n"
    with pytest.raises(DataError, match=r"1 rows have the transaction_id of a row above, but other") as error:
        run(configure(log, columns=BY_ID, duplicates=duplicates))
    assert "(first: row 2)" in str(error.value)
    assert "order_id" in str(error.value) and "group_by" in str(error.value)


def test_copies_of_a_transaction(configure: Configure, run: Ingest, files: Workspace) -> None:
    rows = ["a,2024-01-05,10,7", "b,2024-01-05,10,", "b,2024-01-05,10,", "a,2024-01-05,10.0,7"]
    log = "\n".join(["customer,when,paid,order", *rows])
    with pytest.raises(DataError, match=r"1 rows repeat a row above.*\(first: row 4\)"):
        run(configure(log, columns=BY_ID))
    assert run(configure(log, columns=BY_ID, duplicates="drop"))["rows"] == 3  # no id: not a copy
    assert pq.read_table(files.rejected)["row"].to_pylist() == [4]
    assert run(configure(log, columns=BY_ID, duplicates="keep"))["rows"] == 4
    assert read(files.records).column_names == ["user_id", "timestamp", "amount", "quantity", "is_return"]


def test_equal_order_numbers_of_two_customers_are_two_orders(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    log = "customer,when,paid,n,order\na,2024-01-05,10,1,7\nb,2024-01-05,20,2,7\na,2024-01-04,5,1,7\n"
    run(configure(log, columns=LINES, group_by="order_id"))
    assert sorted(read(files.records)["amount"].to_pylist()) == [15.0, 20.0]


def test_equal_lines_of_one_order_are_refused_with_the_remedy(configure: Configure, run: Ingest) -> None:
    log = "customer,when,paid,n,order\na,2024-01-05,10,1,7\na,2024-01-05,10,1,7\n"
    with pytest.raises(DataError, match="keep if lines of one order may be alike"):
        run(configure(log, columns=LINES, group_by="order_id"))


MONTHS = "customer,month,churned,bill\na,2024-01-01,0,1\na,2024-02-01,1,2\nb,2024-01-01,0,3\n"


def test_every_row_of_a_monthly_panel_is_stored(configure: Configure, run: Ingest, files: Workspace) -> None:
    columns = {"user_id": "customer", "target": "churned", "event_timestamp": "month"}
    config = configure(MONTHS, "labelled", columns=columns, keep=["bill"])
    assert run(config)["rows"] == 3
    with pytest.raises(DataError, match="have the user_id and the time of a row above"):
        run(configure(MONTHS + "b,2024-01-01,1,9\n", "labelled", columns=columns, keep=["bill"]))
    dropped = configure(
        MONTHS + "b,2024-01-01,1,9\n", "labelled", columns=columns, keep=["bill"], duplicates="drop"
    )
    assert run(dropped)["rows"] == 3 and sorted(read(files.records)["bill"].to_pylist()) == [1, 2, 3]


def test_a_customer_with_two_rows_and_no_time_is_refused_with_the_remedy(
    configure: Configure, run: Ingest
) -> None:
    with pytest.raises(DataError, match=r"have the user_id of a row above.*event_timestamp if a customer"):
        run(configure(MONTHS, "labelled", keep=["bill"]))


def test_a_declared_type_that_loses_most_values_is_refused(configure: Configure, run: Ingest) -> None:
    table = "customer,churned,active\na,1,Yes\nb,0,No\n"
    with pytest.raises(DataError, match=r"column 'active' cannot be int64: 1 of its values") as error:
        run(configure(table, "labelled", types={"active": "int64"}))
    assert "Yes" not in str(error.value) and "data.source.types.active" in str(error.value)
    numbers = "customer,churned,age\n" + "".join(f"c{i},{i % 2},{i}\n" for i in range(200)) + "x,1,old\n"
    assert run(configure(numbers, "labelled", types={"age": "int64"}))["rows"] == 201


def test_where_that_leaves_out_all_rows_is_refused(configure: Configure, run: Ingest) -> None:
    with pytest.raises(DataError, match=r"data\.source\.where leaves out all 4 rows"):
        run(configure(REPEATED, where="paid > 1000"))


def test_a_refund_does_not_break_the_shipped_expectations(
    configure: Configure, run: Ingest, files: Workspace
) -> None:
    from churn.settings import load_settings

    shipped = [dict(e) for e in load_settings().data.expectations if "row_count" not in str(e["type"])]
    log = "customer,when,paid\na,2024-01-05,10\na,2024-01-06,-4\n"
    run(configure(log, expectations=shipped))
    assert read(files.records)["is_return"].to_pylist() == [False, True]
    with pytest.raises(DataError, match=r"\(amount\): 1 of 2 values"):
        run(configure(log, expectations=shipped, returns=None))


def test_many_parts_and_a_single_one_contain_the_same_rows(
    configure: Configure, run: Ingest, files: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    log: Any = pd.DataFrame(
        {
            "customer": rng.integers(1, 300, 4000),
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 50, 4000), unit="D"),
            "paid": rng.integers(-5, 50, 4000),
        }
    )
    config = configure(log, user_id_type="integer", duplicates="keep")
    run(config)
    whole = read(files.records)
    monkeypatch.setattr(staging, "BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(parts_module, "ROWS_A_PART", 500)
    run(config)
    assert len(parts(files)) > 3
    assert read(files.records).equals(whole)
