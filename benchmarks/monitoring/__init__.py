"""How often monitoring raises a false alarm, and which planted faults it finds."""
