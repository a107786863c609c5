"""From validated records to point-in-time features, offline and online."""
