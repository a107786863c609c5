"""Readiness by time, the last trouble, and the counts of each observation."""

import sqlalchemy as sa
from alembic import op

from rollout.database.tables import Moment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("unready_since", Moment))
    op.add_column("rollouts", sa.Column("trouble", sa.Text, nullable=False, server_default=""))
    op.add_column("rollouts", sa.Column("stuck", sa.Boolean, nullable=False, server_default=sa.false()))
    op.drop_column("rollouts", "unready")
    op.create_table(
        "observations",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("rollout", sa.String(64), sa.ForeignKey("rollouts.id"), nullable=False, index=True),
        sa.Column("at", Moment, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
    )
