"""The statistical tests that rules use, valid at every look: on event rates, bounded means and blocks of
time."""
