"""Imports Feast without three effects on the process.

Its run-time type checks of its own classes are left out: the import takes 2 s instead of 4 s. PyTorch, which
Feast imports for tensors that it can return, is imported when one is wanted, and so not at all here: 2 s and
400 MB. And metrics stay in the memory of the process that counts them: Feast sets a variable with which
prometheus_client, when it is imported later, shares all values of one name through files, for Feast's own
server.

Names of Feast have to be imported after this module. `typeguard` only checks arguments, so its absence
changes no behaviour. It is restored afterwards for other users.
"""

import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import prometheus_client  # noqa: F401  # before Feast: it chooses at its import where values are stored
import typeguard

from handlers.store import redis_address


def _unchecked(target: Any = None, **_: Any) -> Any:
    return target if target is not None else lambda decorated: decorated


TORCH_OF_FEAST = "feast.torch_wrapper"
"""Feast's module that imports PyTorch; its other modules use its function `get_torch`."""


def _late_torch() -> types.ModuleType:
    late = types.ModuleType(TORCH_OF_FEAST)
    late.get_torch = lambda: importlib.import_module("torch")  # type: ignore[attr-defined]
    return late


SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
_shared = os.environ.get(SHARED_METRICS)
_checked: Callable[..., Any] = typeguard.typechecked
typeguard.typechecked = _unchecked
sys.modules.setdefault(TORCH_OF_FEAST, _late_torch())
try:
    import feast
    import feast.infra.offline_stores.duckdb
    import feast.infra.online_stores.sqlite
finally:
    typeguard.typechecked = _checked
    if _shared is None:  # processes that are started later would inherit it
        os.environ.pop(SHARED_METRICS, None)

FeatureStore = feast.FeatureStore
redis_address.teach_feast()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings of Feast and ibis about their own code, which a caller cannot prevent."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "On demand feature view is an experimental feature", RuntimeWarning)
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        yield
