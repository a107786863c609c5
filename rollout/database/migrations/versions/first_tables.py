"""Rollouts, their history, requests of people, and leases."""

import sqlalchemy as sa
from alembic import op

from rollout.database.tables import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(255), nullable=False, index=True),
        sa.Column("active", sa.String(255), unique=True),
        sa.Column("candidate", sa.JSON, nullable=False),
        sa.Column("previous", sa.JSON),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("windows", sa.JSON, nullable=False),
        sa.Column("started", Moment, nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("plan", sa.JSON, nullable=False),
        sa.Column("since", Moment, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("pending", sa.Integer, nullable=False),
        sa.Column("deployed", sa.Boolean, nullable=False),
        sa.Column("paused_since", Moment),
        sa.Column("unreached_since", Moment),
        sa.Column("unready", sa.Integer, nullable=False),
        sa.Column("promoted", sa.Boolean, nullable=False),
        sa.Column("ending", sa.String(16)),
        sa.Column("controller", sa.String(255), nullable=False),
        sa.Column("ended", Moment),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("look", sa.JSON),
    )
    op.create_table(
        "events",
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id"), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("stage", sa.Integer, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("mirror", sa.Boolean, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
        sa.Column("verdicts", sa.JSON, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("rollout", "sequence"),
    )
    op.create_table(
        "confirmations",
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("rollout", "sequence"),
    )
    op.create_table(
        "requests",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id"), nullable=False, index=True),
        sa.Column("at", Moment, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("answered", sa.Integer),
    )
    op.create_table(
        "leases",
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("expires", Moment, nullable=False),
    )
    for statement in _append_only(op.get_bind().dialect.name):
        op.execute(statement)


def _append_only(dialect: str) -> list[str]:
    """Triggers by which the database refuses to change or delete events."""
    refused = "the history of rollouts is appended only"
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER events_no_{verb} BEFORE {verb} ON events"
            f" BEGIN SELECT RAISE(ABORT, '{refused}'); END"
            for verb in ("UPDATE", "DELETE")
        ]
    if dialect == "postgresql":
        return [
            "CREATE FUNCTION rollout_events_appended_only() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{refused}'; END $$",
            "CREATE TRIGGER events_appended_only BEFORE UPDATE OR DELETE ON events"
            " FOR EACH ROW EXECUTE FUNCTION rollout_events_appended_only()",
        ]
    return []
