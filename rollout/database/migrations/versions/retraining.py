"""Retraining: requests of people, decisions with their evidence, runs with their steps, leases and grades."""

import sqlalchemy as sa
from alembic import op

from rollout.database.migrations.append_only import append_only
from rollout.database.tables import Moment

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retraining_requests",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(255), nullable=False, index=True),
        sa.Column("at", Moment, nullable=False),
        sa.Column("who", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("override_veto", sa.Boolean, nullable=False),
    )
    op.create_table(
        "retraining_decisions",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("woken_by", sa.String(64), nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("evidence_sha256", sa.String(64), nullable=False),
        sa.Column("request", sa.Integer),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("obstacle", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
        sa.UniqueConstraint("model", "evidence_sha256", "action", "trigger", "obstacle"),
    )
    op.create_table(
        "retraining_runs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(255), nullable=False, index=True),
        sa.Column("active", sa.String(255), unique=True),
        sa.Column("decision", sa.Integer, nullable=False, unique=True),
        sa.Column("started", Moment, nullable=False),
        sa.Column("ended", Moment),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("evidence_at", Moment),
        sa.Column("labels_until", Moment),
        sa.Column("candidate", sa.JSON),
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id")),
    )
    op.create_table(
        "retraining_steps",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run", sa.String(64), nullable=False, index=True),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("step", sa.String(32), nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("at", Moment, nullable=False),
    )
    op.create_table(
        "retraining_leases",
        sa.Column("model", sa.String(255), primary_key=True),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(255), nullable=False),
        sa.Column("expires", Moment, nullable=False),
    )
    op.create_table(
        "retraining_grades",
        sa.Column("decision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("grade", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
    )
    for table in ("retraining_decisions", "retraining_steps", "retraining_grades"):
        for statement in append_only(op.get_bind().dialect.name, table, "the ledger is appended only"):
            op.execute(statement)
