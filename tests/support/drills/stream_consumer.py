"""A consumer of a topic that ends itself with SIGKILL after a step.

Arguments: the overlay of the settings, the step (`read`, `add`, `push`, `bury`, `commit`), and after how many
times of this step.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from churn.cli import main
from stream.online import Online
from stream.state import State
from stream.topic import Topic

STEPS: dict[str, tuple[type, str]] = {
    "read": (Topic, "read"),
    "add": (State, "add"),
    "push": (Online, "push"),
    "bury": (Topic, "bury"),
    "commit": (Topic, "commit"),
}


def killed_after(act: Callable[..., Any], times: int) -> Callable[..., Any]:
    count = 0

    def done(*arguments: Any) -> Any:
        nonlocal count
        found = act(*arguments)
        if found or act.__name__ != "read":  # a read that found nothing is no step
            count += 1
        if count >= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    return done


if __name__ == "__main__":
    overlay, step, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    room, name = STEPS[step]
    setattr(room, name, killed_after(getattr(room, name), times))
    sys.argv[1:] = ["stream", "--config", str(overlay), "--set", "stream.address=null"]
    raise SystemExit(main())
