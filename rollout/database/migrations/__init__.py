"""Migrations of the tables of `rollout.database`; alembic runs them when a database is opened."""
