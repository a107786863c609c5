"""Records of predictions, as a worker hands them to the log."""

from datetime import datetime, timedelta

from handlers.records.record import Origin, Records
from support.served_bundle import NOW

TYPES = {"orders": "int64", "spend": "float64", "segment": "string"}
ORIGIN = Origin("v1", "d" * 64, "stable", 0.5, TYPES)


def records(*numbers: int, time_: datetime = NOW) -> Records:
    """A record a number; the numbers stand in the request ids."""
    rows = len(numbers)
    return Records(
        time=time_,
        latency_ms=1.5,
        request_ids=[str(number) for number in numbers],
        rows=range(rows),
        user_ids=[f"u_{number:032x}" for number in numbers],
        timestamps=[NOW - timedelta(days=1), *[None] * (rows - 1)],
        status=["ok", *["unknown"] * (rows - 1)],
        scores=[0.75, *[0.25] * (rows - 1)],
        columns={"orders": [None] * rows, "spend": [float("nan")] * rows, "segment": ["a"] * rows},
        overridden={},
    )
