"""The tables of `rollout.database` and the queries on them; rollout/store.py puts the queries together."""
