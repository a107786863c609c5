"""Labels: whether a customer churned after a snapshot."""

from datetime import datetime, timedelta

from data.config import utc_text


def labels_at(purchases: str, activity: str, as_of: datetime, horizon: timedelta) -> str:
    """SQL: user_id, event_timestamp, churned for every customer with a purchase before `as_of`.

    Churned is 1 without a row of `activity` in [as_of, as_of + horizon). Both are relations with `user_id#`
    and a `timestamp#` in UTC without zone. The caller ensures that they reach the end of the horizon.
    `activity` contains the purchases, and also the returns if `returns_count_as_life` is true.
    """
    return f"""
        SELECT "user_id#" AS user_id, TIMESTAMPTZ '{utc_text(as_of)}' AS event_timestamp,
               CAST(NOT bool_or("timestamp#" >= {moment(as_of)}) AS TINYINT) AS churned
        FROM {activity} WHERE "timestamp#" < {moment(as_of + horizon)} AND "user_id#" IN
          (SELECT "user_id#" FROM {purchases} WHERE "timestamp#" < {moment(as_of)})
        GROUP BY "user_id#" ORDER BY user_id"""


def moment(at: datetime) -> str:
    """A TIMESTAMP literal without the zone, because the log's times have none."""
    return f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S.%f}'"
