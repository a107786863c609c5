"""Runs the migrations on the connection that rollout/database/connection.py has opened and locked."""

from alembic import context

from rollout.database.tables import TABLES, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=TABLES,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
