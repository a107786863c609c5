"""Labels: whether a customer churned after a snapshot."""

from datetime import datetime, timedelta


def with_labels(customers: str, activity: str, as_of: datetime, horizon: timedelta) -> str:
    """SQL: the rows of `customers`, which has a `user_id`, with `churned`.

    Churned is 1 without a row of `activity` in [as_of, as_of + horizon). `activity` has `user_id#` and a
    `timestamp#` in UTC without zone. The caller ensures that it reaches the end of the horizon. It contains
    the purchases, and also the returns if `returns_count_as_life` is true.
    """
    return f"""
        SELECT customers.*, CAST(active."user_id#" IS NULL AS TINYINT) AS churned
        FROM {customers} AS customers LEFT JOIN
          (SELECT DISTINCT "user_id#" FROM {activity}
           WHERE "timestamp#" >= {moment(as_of)} AND "timestamp#" < {moment(as_of + horizon)}) AS active
          ON customers.user_id = active."user_id#"
        ORDER BY user_id"""


def moment(at: datetime) -> str:
    """A TIMESTAMP literal without the zone, because the log's times have none."""
    return f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S.%f}'"
