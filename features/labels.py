"""What became of a customer after a snapshot."""

from datetime import datetime, timedelta

from data.config import utc_text


def labels_at(log: str, as_of: datetime, horizon: timedelta) -> str:
    """SQL: user_id, event_timestamp, churned for every customer known at `as_of`.

    Churned is 1 without a purchase in [as_of, as_of + horizon). `log` is a relation with user_id and a
    `timestamp` in UTC without zone; the caller makes sure that it reaches the horizon's end.
    """
    return f"""
        SELECT user_id, TIMESTAMPTZ '{utc_text(as_of)}' AS event_timestamp,
               CAST(NOT bool_or(timestamp >= {moment(as_of)}) AS TINYINT) AS churned
        FROM {log} WHERE timestamp < {moment(as_of + horizon)}
        GROUP BY user_id HAVING min(timestamp) < {moment(as_of)} ORDER BY user_id"""


def moment(at: datetime) -> str:
    """A TIMESTAMP literal; the zone is cut off, since the log's times have none."""
    return f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S.%f}'"
