"""`churn init` on the synthetic cases beside the repository; their docstrings state what a user expects."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from test_init import agrees, proposed

from core.errors import DataError
from support.ugly_files import Expected

MAKER = Path(__file__).parents[3] / "shared" / "cases" / "make_cases.py"
LABELLED = frozenset({"observed_at"})
CASES: dict[str, tuple[str, Expected]] = {
    "second_header": (
        "cards.csv",
        Expected(
            "labelled",
            {
                "columns": {"user_id": "CLIENTNUM", "target": "Status"},
                "positive": "Attrited Customer",
                "options": {"skiprows": [1]},
                "user_id_type": "integer",
            },
            LABELLED,
            {"Customer_Age": "int64", "Offer": "string", "Fee": "float64"},
            ("score_a", "score_b"),
        ),
    ),
    "dotted_booleans": (
        "calls.txt",
        Expected(
            "labelled",
            {
                "columns": {"user_id": "Phone", "target": "Churn?"},
                "positive": "True.",
                "user_id_type": "string",
            },
            LABELLED,
            {"Area_Code": "string", "Day_Mins": "float64", "Int_l_Plan": "string", "Months_With_Us": "int64"},
        ),
    ),
    "three_valued_target": (
        "telecom.csv",
        Expected(
            "labelled",
            {
                "columns": {"user_id": "Customer ID", "target": "Customer Status"},
                "positive": "Churned",
                "ignore": ["Joined"],
            },
            LABELLED,
            {"Offer": "string", "Zip_Code": "string", "Tenure_in_Months": "int64"},
            ("Churn Reason",),
        ),
    ),
    "no_id": (
        "members",
        Expected(
            "labelled", {"number_rows": True, "columns": {"target": "churned"}}, LABELLED, {"plan": "string"}
        ),
    ),
    "line_items": (
        "invoices.csv.gz",
        Expected(
            "transactions",
            {
                "columns": {"user_id": "CustomerID", "timestamp": "InvoiceDate", "order_id": "InvoiceNo"},
                "computed": {"amount": "Quantity * UnitPrice"},
                "group_by": "order_id",
                "dates": "month_first",
                "user_id_type": "integer",
                "timezone": "UTC",
            },
            frozenset({"timezone", "duplicates"}),
        ),
    ),
    "german_orders": (
        "bestellungen.csv",
        Expected(
            "transactions",
            {
                "columns": {"user_id": "Kunde", "timestamp": "Bestelldatum", "amount": "Betrag"},
                "options": {"sep": ";", "encoding": "latin-1", "decimal": ",", "thousands": "."},
                "currency": True,
                "dates": "day_first",
            },
        ),
    ),
    "statuses": (
        "sales.csv",
        Expected(
            "transactions",
            {
                "columns": {"user_id": "customer_id", "timestamp": "ordered", "amount": "Total Price"},
                "where": "\"Order Status\" <> 'Cancelled'",
                "dates": "epoch_ms",
                "user_id_type": "integer",
            },
        ),
    ),
    "spark_folder": (
        "events",
        Expected(
            "transactions",
            {
                "kind": "parquet",
                "columns": {"user_id": "user", "timestamp": "order_date", "amount": "amount"},
                "user_id_type": "string",
            },
            frozenset({"duplicates"}),
        ),
    ),
    "monthly_panel": (
        "subscriptions.csv",
        Expected(
            "labelled",
            {"columns": {"user_id": "account", "target": "churn_flag", "event_timestamp": "month"}},
            frozenset(),
            {"plan": "string", "mrr": "float64"},
            ("end_date",),
        ),
    ),
    "workbook": (
        "hr.xlsx",
        Expected(
            "labelled",
            {
                "kind": "excel",
                "sheet": "Data",
                "columns": {"user_id": "EmployeeNumber", "target": "Attrition"},
            },
            LABELLED,
            {"Age": "int64", "OverTime": "string"},
            ("Over18", "StandardHours"),
        ),
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MAKER.is_file():
        pytest.skip(f"{MAKER} does not exist: the cases are beside the repository")
    spec = importlib.util.spec_from_file_location("make_cases", MAKER)
    assert spec is not None and spec.loader is not None
    made: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    target = tmp_path_factory.mktemp("cases")
    for write in made.WRITERS:
        write(target)
    return target


@pytest.mark.parametrize("case", CASES)
def test_overlay_of_a_case(case: str, folder: Path, tmp_path: Path) -> None:
    name, expected = CASES[case]
    if name.endswith(".xlsx"):
        pytest.importorskip("openpyxl", reason="Excel is read by the extra")
    _, overlay, doubts = proposed(folder / name, tmp_path)
    agrees(overlay, expected)
    assert doubts <= expected.doubts


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_case_ends_in_a_served_prediction(case: str, folder: Path, tmp_path: Path) -> None:
    from support.init_runs import run_to_a_prediction

    run_to_a_prediction(folder / CASES[case][0], tmp_path)


def test_a_case_of_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("id,age,churn\n" + "".join(f"c{i},{i % 50},no\n" for i in range(200)))
    with pytest.raises(DataError, match="no column shows who left"):
        proposed(tmp_path / "one.csv", tmp_path)
