"""Imports Feast without run-time type checks of its classes, which takes 2 s instead of 4 s.

Names of Feast have to be imported after this module. `typeguard` only checks arguments, so its absence
changes no behaviour. It is restored afterwards for other users.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typeguard

from handlers.store import redis_address


def _unchecked(target: Any = None, **_: Any) -> Any:
    return target if target is not None else lambda decorated: decorated


_checked: Callable[..., Any] = typeguard.typechecked
typeguard.typechecked = _unchecked
try:
    import feast
    import feast.infra.offline_stores.duckdb
    import feast.infra.online_stores.sqlite
finally:
    typeguard.typechecked = _checked

FeatureStore = feast.FeatureStore
redis_address.teach_feast()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of Feast and ibis about their own code, which a caller cannot prevent."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        yield
