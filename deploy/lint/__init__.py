"""Checks of deploy/ and kserve/, each by the tool of its system: `make lint-deploy`."""
