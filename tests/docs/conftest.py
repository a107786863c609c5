"""`docs/` is no package: its scripts are loaded by mkdocs, and here."""

import sys

from support.documents import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs"))
