"""The feature repository as Feast's own command line reads it."""
