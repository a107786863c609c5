"""Small synthetic tables with the irregularities of real exports, and what `churn init` has to find."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Expected:
    """What a careful person would write: keys of `data.source`, features by name, doubts by key."""

    shape: str
    source: dict[str, Any]
    doubts: frozenset[str] = frozenset()
    """All doubts that the file leaves open; each other doubt is false."""
    features: dict[str, str] = field(default_factory=dict)
    """Feature -> dtype, of the features that must exist."""
    absent: tuple[str, ...] = ()
    """Columns that must not be features."""
    data: dict[str, Any] = field(default_factory=dict)


def people(rows: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    months = draw.integers(1, 72, rows)
    bill = np.round(draw.gamma(4, 15, rows), 2)
    plan = draw.choice(["basic", "plus", "family"], rows, p=[0.5, 0.3, 0.2])
    logit = -1.0 - 0.03 * months + 0.015 * bill + 0.8 * (plan == "basic")
    gone = draw.random(rows) < 1 / (1 + np.exp(-logit))
    return pd.DataFrame({"months": months, "bill": bill, "plan": plan, "gone": gone})


def purchases(customers: int, seed: int, days: int = 800, gap: float = 30.0) -> pd.DataFrame:
    """Columns customer, at, amount: purchases of customers who stop at some time."""
    draw = np.random.default_rng(seed)
    rows = []
    for customer in range(1, customers + 1):
        start, own, stop = draw.uniform(0, days * 0.7), draw.gamma(2, gap / 2), draw.exponential(days / 2)
        day = start
        while day < min(days, start + stop):
            rows.append((customer, day, round(float(draw.lognormal(3.2, 0.6)), 2)))
            day += draw.exponential(max(own, 0.5))
    frame = pd.DataFrame(rows, columns=["customer", "day", "amount"]).sort_values("day", ignore_index=True)
    frame["at"] = pd.Timestamp("2022-02-01 09:00") + pd.to_timedelta(
        (frame.pop("day") * 86_400).round(), unit="s"
    )
    return frame


def bank(folder: Path) -> tuple[Path, Expected]:
    """Row numbers, surnames, a complaint flag that reveals the target, 1/0 under `Exited`."""
    t, draw = people(1800, 1), np.random.default_rng(1)
    f = pd.DataFrame(
        {
            "RowNumber": np.arange(len(t)) + 1,
            "CustomerId": draw.permutation(15_600_000 + np.arange(len(t)) * 37),
            "Surname": draw.choice([f"Name{i}" for i in range(700)], len(t)),
            "Geography": draw.choice(["France", "Spain", "Germany"], len(t)),
            "Tenure": t.months,
            "Balance": np.where(draw.random(len(t)) < 0.4, 0, t.bill * 901.37).round(2),
            "IsActiveMember": draw.integers(0, 2, len(t)),
            "CreditLimit": t.months * 100.0,
            "Complain": np.where(draw.random(len(t)) < 0.003, ~t.gone, t.gone).astype(int),
            "Exited": t.gone.astype(int),
        }
    )
    f.to_csv(folder / "bank.csv", index=False)
    return folder / "bank.csv", Expected(
        "labelled",
        {"columns": {"user_id": "CustomerId", "target": "Exited"}, "user_id_type": "integer", "positive": 1},
        frozenset({"observed_at"}),
        {"Geography": "string", "Tenure": "int64", "Balance": "float64", "CreditLimit": "float64"},
        ("RowNumber", "Surname", "Complain"),
    )


def german_contracts(folder: Path) -> tuple[Path, Expected]:
    """Tab separated, cp1252, decimal commas, postcodes with zeros, days in German, `Gekündigt: ja/nein`."""
    t, draw = people(1500, 2), np.random.default_rng(2)
    begin = pd.Timestamp("2016-05-03") + pd.to_timedelta(draw.integers(0, 2000, len(t)), unit="D")
    f = pd.DataFrame(
        {
            "Kundennummer": [f"K{i:06d}" for i in range(len(t))],
            "Vertragsbeginn": begin.strftime("%d.%m.%Y"),
            "Monatsbeitrag": [f"{v:.2f}".replace(".", ",") for v in t.bill],
            "PLZ": draw.choice(["01067", "04109", "80331", "50667"], len(t)),
            "E-Mail": [f"p{i}@example.org" for i in range(len(t))],
            "Zahlweise": draw.choice(["Überweisung", "Lastschrift"], len(t)),
            "Gekündigt": np.where(t.gone, "ja", "nein"),
        }
    )
    (folder / "vertraege.tsv").write_bytes(f.to_csv(index=False, sep="\t").encode("cp1252"))
    return folder / "vertraege.tsv", Expected(
        "labelled",
        {
            "columns": {"user_id": "Kundennummer", "target": "Gekündigt"},
            "positive": "ja",
            "user_id_type": "string",
            "options": {"sep": "\t", "encoding": "latin-1", "decimal": ","},
        },
        frozenset({"observed_at"}),
        {
            "PLZ": "string",
            "Monatsbeitrag": "float64",
            "Zahlweise": "string",
            "days_since_Vertragsbeginn": "float64",
        },
        ("E-Mail",),
    )


def saas_accounts(folder: Path) -> tuple[Path, Expected]:
    """Parquet: booleans, a plan state Active/Cancelled, a date and a reason of leaving, a timestamp."""
    t, draw = people(1200, 3), np.random.default_rng(3)
    left = pd.Timestamp("2024-03-01") + pd.to_timedelta(draw.integers(0, 60, len(t)), unit="D")
    f = pd.DataFrame(
        {
            "account_uuid": [f"{i:08x}-0000-4000-8000-000000000000" for i in range(len(t))],
            "seats": t.months,
            "mrr_usd": t.bill,
            "plan_name": t.plan,
            "sso_enabled": draw.random(len(t)) < 0.5,
            "signed_up": pd.Timestamp("2020-01-01")
            + pd.to_timedelta(draw.integers(0, 1400, len(t)), unit="D"),
            "lifecycle": np.where(t.gone, "Cancelled", "Active"),
            "cancelled_at": pd.Series(left).where(t.gone),
            "exit_survey": pd.Series(draw.choice(["price", "missing features"], len(t))).where(t.gone),
        }
    )
    f.to_parquet(folder / "accounts.parquet", index=False)
    return folder / "accounts.parquet", Expected(
        "labelled",
        {
            "kind": "parquet",
            "columns": {"user_id": "account_uuid", "target": "lifecycle"},
            "positive": "Cancelled",
        },
        frozenset({"observed_at"}),
        {"seats": "int64", "mrr_usd": "float64", "plan_name": "string", "sso_enabled": "string"},
        ("cancelled_at", "exit_survey"),
    )


def awkward_names(folder: Path) -> tuple[Path, Expected]:
    """Names with quotes, blanks, accents, SQL words, our own words, and two that differ only in case."""
    t = people(900, 4)
    f = pd.DataFrame(
        {
            "Client ID": [f"c-{i}" for i in range(len(t))],
            "user_id": t.months % 7,
            "select": t.plan,
            "Âge estimé": t.months,
            'so "called"': t.bill,
            "fee": t.bill * 2,
            "Fee": t.bill.round() + t.months,
            "% used": [f"{v % 100:.1f}%" for v in t.bill],
            "résilié": np.where(t.gone, "oui", "non"),
        }
    )
    f.to_csv(folder / "noms.csv", index=False)
    return folder / "noms.csv", Expected(
        "labelled",
        {"columns": {"user_id": "Client ID", "target": "résilié"}, "positive": "oui"},
        frozenset({"observed_at"}),
        {"select_column": "string", "Age_estime": "int64", "so_called": "float64", "used": "float64"},
    )


def question_marks(folder: Path) -> tuple[Path, Expected]:
    """`|` separated; `?` and NA among numbers, all-text booleans, an inverse flag, no identifier."""
    t, draw = people(1300, 5), np.random.default_rng(5)
    f = pd.DataFrame(
        {
            "months": np.where(draw.random(len(t)) < 0.03, "?", t.months.astype(str)),
            "bill": np.where(draw.random(len(t)) < 0.02, "NA", t.bill.astype(str)),
            "newsletter": draw.choice(["TRUE", "FALSE"], len(t)),
            "still_active": np.where(t.gone, "N", "Y"),
        }
    )
    f.to_csv(folder / "members.psv", index=False, sep="|")
    return folder / "members.psv", Expected(
        "labelled",
        {"number_rows": True, "columns": {"target": "still_active"}, "positive": "N", "missing": ["?"]},
        frozenset({"observed_at", "positive", "target"}),
        {"months": "float64", "bill": "float64", "newsletter": "string"},
    )


def dollars(folder: Path) -> tuple[Path, Expected]:
    """US retail: `$1,234.50`, brackets for refunds, 1/31/22 with AM and PM, receipts of several lines."""
    log, draw = purchases(400, 6), np.random.default_rng(6)
    lines = log.loc[log.index.repeat(draw.integers(1, 4, len(log)))].reset_index()
    back = draw.random(len(lines)) < 0.03
    money = [f"(${v * 40:,.2f})" if b else f"${v * 40:,.2f}" for v, b in zip(lines.amount, back, strict=True)]
    f = pd.DataFrame(
        {
            "Receipt #": 90_000 + lines["index"],
            "SKU": [f"S{i}" for i in draw.integers(0, 5_000, len(lines))],
            "Sold At": [f"{d.month}/{d.day}/{d.year} {d.hour}:{d.minute:02d}" for d in lines["at"]],
            "Extended Amount": money,
            "Loyalty Card": [f"LC-{c:05d}" for c in lines.customer],
        }
    )
    with gzip.open(folder / "receipts.csv.gz", "wt") as out:
        f.to_csv(out, index=False)
    return folder / "receipts.csv.gz", Expected(
        "transactions",
        {
            "columns": {
                "user_id": "Loyalty Card",
                "timestamp": "Sold At",
                "amount": "Extended Amount",
                "order_id": "Receipt #",
            },
            "group_by": "order_id",
            "currency": True,
            "dates": "month_first",
            "options": {"thousands": ","},
        },
        frozenset({"timezone", "duplicates"}),
    )


def french_sales(folder: Path) -> tuple[Path, Expected]:
    """`;`, decimal comma, 31/12/2022, unit price and quantity, cancelled ones, title lines, a total."""
    log, draw = purchases(350, 7), np.random.default_rng(7)
    f = pd.DataFrame(
        {
            "Date de vente": log["at"].dt.strftime("%d/%m/%Y"),
            "N° client": log.customer + 2000,
            "Produit": draw.choice([f"Réf {i}" for i in range(80)], len(log)),
            "Quantité": draw.integers(1, 9, len(log)),
            "Prix unitaire": [f"{v:.2f}".replace(".", ",") for v in log.amount],
            "État": draw.choice(["Livrée", "Annulée"], len(log), p=[0.93, 0.07]),
        }
    )
    text = "Export du 03/05/2024\n\n" + f.to_csv(index=False, sep=";") + "Total;;;;12.345,67;\n"
    (folder / "ventes.csv").write_text(text, encoding="utf-8")
    return folder / "ventes.csv", Expected(
        "transactions",
        {
            "columns": {"user_id": "N° client", "timestamp": "Date de vente", "quantity": "Quantité"},
            "computed": {"amount": '"Quantité" * "Prix unitaire"'},
            "where": "\"État\" <> 'Annulée'",
            "dates": "day_first",
        },
        frozenset({"duplicates"}),
    )


def app_events(folder: Path) -> tuple[Path, Expected]:
    """Events of an app as Parquet parts: zoned times, no money at all, a nested column."""
    log = purchases(250, 8, gap=8)
    f = pd.DataFrame(
        {
            "event_time": log["at"].dt.tz_localize("UTC"),
            "user": log.customer.map(lambda c: f"u{c:07d}"),
            "event_name": np.random.default_rng(8).choice(["login", "export", "invite"], len(log)),
            "properties": [{"a": 1}] * len(log),
        }
    )
    (folder / "events").mkdir()
    for number in range(3):
        f.iloc[number * len(f) // 3 : (number + 1) * len(f) // 3].to_parquet(
            folder / "events" / f"part-{number}.parquet", index=False
        )
    (folder / "events" / "_SUCCESS").write_bytes(b"")
    return folder / "events", Expected(
        "transactions",
        {"columns": {"user_id": "user", "timestamp": "event_time"}, "computed": {"amount": "1"}},
        frozenset(),
        absent=("properties",),
    )


def epochs(folder: Path) -> tuple[Path, Expected]:
    """Epoch seconds, quoted line breaks in a comment, ids of 19 digits, semicolons within quotes."""
    log = purchases(300, 9)
    f = pd.DataFrame(
        {
            "ts": log["at"].astype("int64") // 10**9,
            "buyer_id": 1_700_000_000_000_000_000 + log.customer * 7919,
            "net_value": log.amount,
            "comment": np.where(log.index % 9 == 0, 'said "fine";\nsecond line, too', ""),
        }
    )
    f.to_csv(folder / "ledger.csv", index=False)
    return folder / "ledger.csv", Expected(
        "transactions",
        {
            "columns": {"user_id": "buyer_id", "timestamp": "ts", "amount": "net_value"},
            "dates": "epoch_s",
            "user_id_type": "integer",
        },
        frozenset(),
    )


def no_header(folder: Path) -> tuple[Path, Expected]:
    """Blanks between fields, no header: customer, day, amount in columns without names."""
    log = purchases(300, 10)
    lines = [
        f" {c:05d} {d:%Y%m%d}  2 {a:6.2f}"
        for c, d, a in zip(log.customer, log["at"], log.amount, strict=True)
    ]
    (folder / "sample.txt").write_text("\n".join(lines) + "\n")
    return folder / "sample.txt", Expected(
        "transactions",
        {"columns": {"user_id": "column_1", "timestamp": "column_2", "amount": "column_4"}},
        frozenset({"header", "amount", "user_id", "timestamp", "duplicates"}),
    )


def usage_panel(folder: Path) -> tuple[Path, Expected]:
    """A row for each subscriber and month, `churned_next_month` as 0/1, months as 2023-04."""
    t, draw = people(300, 11), np.random.default_rng(11)
    rows = []
    for number, one in enumerate(t.itertuples()):
        for month in pd.date_range("2022-01-01", periods=int(min(one.months, 20)), freq="MS"):
            minutes = int(draw.gamma(3, 100))
            rows.append(
                (70_000 + number, month.strftime("%Y-%m"), one.plan, minutes, int(draw.random() < 0.05))
            )
    names = ["subscriber_no", "billing_month", "tariff", "minutes", "churned_next_month"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "usage.csv", index=False)
    return folder / "usage.csv", Expected(
        "labelled",
        {
            "columns": {
                "user_id": "subscriber_no",
                "target": "churned_next_month",
                "event_timestamp": "billing_month",
            },
            "dates": "%Y-%m",
            "user_id_type": "integer",
        },
        frozenset(),
        {"tariff": "string", "minutes": "int64"},
    )


def swiss_workbook(folder: Path) -> tuple[Path, Expected]:
    """Excel: title lines above the table, a sheet of notes, real dates, 'Attrition'."""
    t, draw = people(700, 12), np.random.default_rng(12)
    f = pd.DataFrame(
        {
            "Personal-Nr": np.arange(len(t)) + 400,
            "Eintritt": pd.Timestamp("2012-01-01")
            + pd.to_timedelta(draw.integers(0, 3000, len(t)), unit="D"),
            "Lohn": t.bill * 100,
            "Abteilung": draw.choice(["Vertrieb", "IT"], len(t)),
            "Attrition": np.where(t.gone, "Yes", "No"),
        }
    )
    with pd.ExcelWriter(folder / "personal.xlsx") as book:
        pd.DataFrame({"Notiz": ["erstellt von HR"]}).to_excel(book, sheet_name="Info", index=False)
        f.to_excel(book, sheet_name="Daten", index=False)
    return folder / "personal.xlsx", Expected(
        "labelled",
        {
            "kind": "excel",
            "sheet": "Daten",
            "columns": {"user_id": "Personal-Nr", "target": "Attrition"},
            "positive": "Yes",
        },
        frozenset({"observed_at"}),
        {"Lohn": "float64", "Abteilung": "string", "days_since_Eintritt": "float64"},
    )


def either_way(folder: Path) -> tuple[Path, Expected]:
    """Days up to 12 only, in no order: the order of day and month is open."""
    log, draw = purchases(200, 13), np.random.default_rng(13)
    days, months = draw.integers(1, 13, len(log)), draw.integers(1, 13, len(log))
    years = draw.choice([2021, 2022, 2023], len(log))
    f = pd.DataFrame(
        {
            "customer": log.customer,
            "purchase_date": [f"{a:02d}/{b:02d}/{y}" for a, b, y in zip(days, months, years, strict=True)],
            "total": log.amount,
        }
    )
    f.to_csv(folder / "either.csv", index=False)
    return folder / "either.csv", Expected(
        "transactions",
        {"columns": {"user_id": "customer", "timestamp": "purchase_date", "amount": "total"}},
        frozenset({"dates", "duplicates"}),
    )


def short_log(folder: Path) -> tuple[Path, Expected]:
    """Half a year of a shop with many purchases: too short for a horizon of 90 days."""
    log = purchases(500, 14, days=200, gap=9)
    f = pd.DataFrame(
        {"order": log.index + 1, "client": log.customer, "date": log["at"].dt.date, "price": log.amount}
    )
    f.to_csv(folder / "shop.csv", index=False)
    return folder / "shop.csv", Expected(
        "transactions",
        {"columns": {"user_id": "client", "timestamp": "date", "amount": "price", "transaction_id": "order"}},
        frozenset(),
    )


def packed_invoices(folder: Path) -> tuple[Path, Expected]:
    """A folder of gzipped parts: `;`, `31.12.23 18:05`, `12,50 €`, an invoice per row."""
    log = purchases(300, 16)
    (folder / "parts").mkdir()
    for number in range(3):
        part = log.iloc[number::3]
        f = pd.DataFrame(
            {
                "KundenNr": part.customer,
                "Rechnungsdatum": part["at"].dt.strftime("%d.%m.%y %H:%M"),
                "Rechnungsnummer": part.index + 7000,
                "Netto": [f"{v:.2f} €".replace(".", ",") for v in part.amount],
            }
        )
        f.to_csv(folder / "parts" / f"p{number}.csv.gz", index=False, sep=";")
    return folder / "parts", Expected(
        "transactions",
        {
            "columns": {
                "user_id": "KundenNr",
                "timestamp": "Rechnungsdatum",
                "amount": "Netto",
                "transaction_id": "Rechnungsnummer",
            },
            "dates": "%d.%m.%y %H:%M",
            "currency": True,
            "options": {"sep": ";", "decimal": ","},
        },
        frozenset({"timezone"}),
    )


def gym_states(folder: Path) -> tuple[Path, Expected]:
    """Four states of a membership as words; two of them mean that the member left."""
    t, draw = people(1400, 15), np.random.default_rng(15)
    left = draw.choice(["Cancelled", "Expired"], len(t))
    state = np.where(t.gone, left, draw.choice(["Active", "Paused"], len(t), p=[0.9, 0.1]))
    f = pd.DataFrame(
        {"member_no": np.arange(len(t)) + 88_001, "visits": t.months, "fee": t.bill, "state": state}
    )
    f.to_csv(folder / "gym.csv", index=False)
    listed = "case when state in ('Cancelled', 'Expired') then 'churned'"
    return folder / "gym.csv", Expected(
        "labelled",
        {
            "columns": {"user_id": "member_no"},
            "positive": "churned",
            "computed": {"target": f"{listed} when state in ('Active', 'Paused') then 'stayed' end"},
        },
        frozenset({"observed_at", "positive"}),
        {"visits": "int64", "fee": "float64"},
    )


MAKERS: tuple[Callable[[Path], tuple[Path, Expected]], ...] = (
    *(bank, german_contracts, saas_accounts, awkward_names, question_marks, dollars, french_sales),
    *(
        app_events,
        epochs,
        no_header,
        usage_panel,
        swiss_workbook,
        either_way,
        short_log,
        gym_states,
        packed_invoices,
    ),
)
