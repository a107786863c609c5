"""Hours of load, retrainings, rollouts, rotations and crashes of stores on the production profile."""
