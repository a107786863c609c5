"""How the tables of `rollout.database` came to be: alembic runs these when a database is opened."""
