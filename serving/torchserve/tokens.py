"""TorchServe's own tokens: random at each start, in a file of mode 600.

TorchServe can replace a token, but requests with the old token then get a 400 at once. So tokens are never
renewed in a running server: before they expire, after `serving.token_days`, the server is replaced behind the
gateway (serving/supervisor.py), which loses no request.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from core.errors import ServingError

WAIT_S = 20.0


@dataclass(frozen=True)
class Tokens:
    inference: str = field(repr=False)
    management: str = field(repr=False)
    expire: datetime

    @staticmethod
    def headers(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}


def read_tokens(file: Path) -> Tokens | None:
    """The tokens in TorchServe's key_file.json; None while it has not written them completely."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Tokens(
            inference=str(content["inference"]["key"]),
            management=str(content["management"]["key"]),
            expire=min(
                datetime.fromisoformat(content[kind]["expiration time"])
                for kind in ("inference", "management")
            ),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError):
        return None  # not written completely


def wait_for_tokens(file: Path, alive: Callable[[], bool]) -> Tokens | None:
    """The tokens as soon as TorchServe has written them; None when it ended before.

    Raises ServingError when there are none after WAIT_S.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if (tokens := read_tokens(file)) is not None:
            return tokens
        if not alive():
            return None
        time.sleep(0.05)
    raise ServingError(f"TorchServe wrote no {file.name} within {WAIT_S:g} s; token authorisation is not on")
