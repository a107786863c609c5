"""Replays real history through monitors, governor, training, gates and rollout under a simulated clock."""
