"""Feast, imported without wrapping its classes in run-time type checks: 2 s of start instead of 4.

Import Feast's names from their modules after this one. `typeguard` only checks arguments, so leaving it out
changes no behaviour; it is put back for whoever else uses it.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typeguard

from handlers import redis_address


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
    """Without the warnings that Feast and ibis raise about themselves, which no caller can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        yield
