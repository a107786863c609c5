"""The checks of production data: each counts what its decision needs, and judges the counts."""
