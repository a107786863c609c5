"""The tables of `rollout.database` after the newest migration."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)


class Moment(TypeDecorator[datetime]):
    """An aware UTC time on every database; SQLite alone would return it without its zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC)


VERSION_TABLE = "rollout_version"
"""Not the default `alembic_version`, which MLflow uses: both may share a database."""
NEWEST = "0005"
"""The newest of rollout/database/migrations/versions."""

TABLES = MetaData()

ROLLOUTS = Table(
    "rollouts",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("model", String(255), nullable=False, index=True),
    # the model's name while the rollout runs, else null: so the database refuses a second one that runs
    Column("active", String(255), unique=True),
    Column("candidate", JSON, nullable=False),
    Column("previous", JSON(none_as_null=True)),
    Column("phase", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("windows", JSON, nullable=False),
    Column("started", Moment, nullable=False),
    Column("by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("since", Moment, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("pending", Integer, nullable=False),
    Column("deployed", Boolean, nullable=False),
    Column("paused_since", Moment),
    Column("unreached_since", Moment),
    Column("unready_since", Moment),
    Column("trouble", Text, nullable=False, server_default=""),
    Column("stuck", Boolean, nullable=False, server_default=false()),
    Column("promoted", Boolean, nullable=False),
    Column("ending", String(16)),
    Column("controller", String(255), nullable=False),
    Column("ended", Moment),
    Column("outcome", Text, nullable=False),
    # the last observation, for `churn rollout status`; no part of the history
    Column("look", JSON(none_as_null=True)),
)

EVENTS = Table(
    "events",
    TABLES,
    Column("rollout", String(64), ForeignKey("rollouts.id"), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("action", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("mirror", Boolean, nullable=False),
    Column("who", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JSON, nullable=False),
    Column("verdicts", JSON, nullable=False),
    Column("done", Boolean, nullable=False),
    PrimaryKeyConstraint("rollout", "sequence"),
)

# an intention that was carried out: a row of its own, since events are never changed
CONFIRMATIONS = Table(
    "confirmations",
    TABLES,
    Column("rollout", String(64), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    PrimaryKeyConstraint("rollout", "sequence"),
)

# counts, whenever they have changed: a past rollout can be judged again under another plan
OBSERVATIONS = Table(
    "observations",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(64), ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("counts", JSON, nullable=False),
)

REQUESTS = Table(
    "requests",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("rollout", String(64), ForeignKey("rollouts.id"), nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("what", String(16), nullable=False),
    Column("who", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    # sequence number of the event that answered it
    Column("answered", Integer),
)

LEASES = Table(
    "leases",
    TABLES,
    Column("model", String(255), primary_key=True),
    Column("holder", String(255), nullable=False),
    Column("expires", Moment, nullable=False),
)

PROJECTIONS = Table(
    "projections",
    TABLES,
    Column("model", String(255), nullable=False),
    Column("name", String(32), nullable=False),
    Column("agrees", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("since", Moment, nullable=False),
    PrimaryKeyConstraint("model", "name"),
)

# one run of the monitor: all that it measured and found, at most once for a model and a time
MONITOR_RUNS = Table(
    "monitor_runs",
    TABLES,
    Column("model", String(255), nullable=False),
    Column("at", Moment, nullable=False),
    Column("since", Moment, nullable=False),
    Column("version", String(64), nullable=False),
    Column("evidence_sha256", String(64), nullable=False),
    # when the run ended by the clock, for the age of the last success
    Column("recorded", Moment, nullable=False),
    PrimaryKeyConstraint("model", "at"),
)

MONITOR_MEASUREMENTS = Table(
    "monitor_measurements",
    TABLES,
    Column("model", String(255), nullable=False),
    Column("at", Moment, nullable=False),
    Column("name", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("version", String(64), nullable=False),
    # null: it could not be measured from so few rows
    Column("value", Float),
    Column("rows", Integer, nullable=False),
    Column("low", Float),
    Column("high", Float),
    PrimaryKeyConstraint("model", "at", "name", "subject", "version"),
)

MONITOR_FINDINGS = Table(
    "monitor_findings",
    TABLES,
    Column("model", String(255), nullable=False),
    Column("at", Moment, nullable=False),
    Column("check_name", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("cause", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("message", Text, nullable=False),
    # the check and the subject of the finding that explains this one; empty if none does
    Column("explained_by", String(330), nullable=False),
    Column("numbers", JSON, nullable=False),
    PrimaryKeyConstraint("model", "at", "check_name", "subject"),
)

# a person asks for a training; the decision whose `request` is its number answers it
RETRAINING_REQUESTS = Table(
    "retraining_requests",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("model", String(255), nullable=False, index=True),
    Column("at", Moment, nullable=False),
    Column("who", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("override_veto", Boolean, nullable=False),
)

# each yes and no with all that it was made from; appended only
RETRAINING_DECISIONS = Table(
    "retraining_decisions",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("model", String(255), nullable=False),
    Column("at", Moment, nullable=False),
    Column("woken_by", String(64), nullable=False),
    Column("policy", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("evidence_sha256", String(64), nullable=False),
    Column("request", Integer),
    Column("action", String(16), nullable=False),
    # empty texts instead of null, which no unique constraint compares
    Column("trigger", String(16), nullable=False),
    Column("obstacle", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JSON, nullable=False),
    UniqueConstraint("model", "evidence_sha256", "action", "trigger", "obstacle"),
)

RETRAINING_RUNS = Table(
    "retraining_runs",
    TABLES,
    Column("id", String(64), primary_key=True),
    Column("model", String(255), nullable=False, index=True),
    # the model's name until the run ends, else null: so the database refuses a second one
    Column("active", String(255), unique=True),
    # the decision that granted it; it grants no second one
    Column("decision", Integer, nullable=False, unique=True),
    Column("started", Moment, nullable=False),
    Column("ended", Moment),
    Column("outcome", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("evidence_at", Moment),
    # the end of the newest horizon of its training labels
    Column("labels_until", Moment),
    Column("candidate", JSON(none_as_null=True)),
    Column("rollout", String(64), ForeignKey("rollouts.id")),
)

# appended only
RETRAINING_STEPS = Table(
    "retraining_steps",
    TABLES,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run", String(64), nullable=False, index=True),
    Column("token", Integer, nullable=False),
    Column("step", String(32), nullable=False),
    Column("what", String(16), nullable=False),
    Column("at", Moment, nullable=False),
)

# the token grows with each runner that takes the lease: an older one is refused (rollout/database/fencing.py)
RETRAINING_LEASES = Table(
    "retraining_leases",
    TABLES,
    Column("model", String(255), primary_key=True),
    Column("token", Integer, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("expires", Moment, nullable=False),
)

# appended only
RETRAINING_GRADES = Table(
    "retraining_grades",
    TABLES,
    Column("decision", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("grade", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("numbers", JSON, nullable=False),
)
