"""For all tests: no property test has a deadline, since a machine that is full takes longer for the same."""

from hypothesis import settings

settings.register_profile("churn", deadline=None)
settings.load_profile("churn")
