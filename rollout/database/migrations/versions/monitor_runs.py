"""Runs of the monitor, with what they measured and found."""

import sqlalchemy as sa
from alembic import op

from rollout.database.tables import Moment

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "monitor_runs",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("since", Moment, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("evidence_sha256", sa.String(64), nullable=False),
        sa.Column("recorded", Moment, nullable=False),
        sa.PrimaryKeyConstraint("model", "at"),
    )
    op.create_table(
        "monitor_measurements",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("low", sa.Float),
        sa.Column("high", sa.Float),
        sa.PrimaryKeyConstraint("model", "at", "name", "subject", "version"),
    )
    op.create_table(
        "monitor_findings",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("check_name", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("explained_by", sa.String(330), nullable=False),
        sa.Column("numbers", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("model", "at", "check_name", "subject"),
    )
