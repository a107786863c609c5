"""Writes a purchase log to try `churn init` on: python examples/orders.py > orders.csv

The purchases are those of a third of CDNOW's customers (1997 and 1998; the file is part of the package
Lifetimes). Their dates are moved so that the log ends today: features of an old log would be stale.
"""

import csv
import sys
from datetime import date, datetime
from importlib.metadata import distribution

rows = [
    (int(customer), datetime.strptime(day, "%Y%m%d").date(), items, amount)
    for file in distribution("Lifetimes").files or ()
    if file.name == "CDNOW_master.txt"
    for customer, day, items, amount in map(str.split, file.read_text().splitlines()[1:])
    if int(customer) % 3 == 0
]
moved = date.today() - max(day for _, day, _, _ in rows)
table = csv.writer(sys.stdout, lineterminator="\n")
table.writerow(["customer_id", "ordered_at", "items", "total"])
table.writerows((customer, day + moved, items, amount) for customer, day, items, amount in rows)
