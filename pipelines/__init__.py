"""The loop with its steps, rollouts and servers, put together from the rooms below, and the reports."""
