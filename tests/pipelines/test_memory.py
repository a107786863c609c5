"""The peak that `churn run` records: of the process and its children, shared pages once."""

import subprocess
import sys
import time

from pipelines.memory import PeakMemory

HOLDS = (
    "import time; held = bytearray({size}); held[::4096] = b"
    '"x" * len(held[::4096]); print(flush=True); time.sleep(60)'
)
SIZE = 200 * 2**20


def test_memory_of_a_child_counts_and_shared_pages_count_once() -> None:
    with PeakMemory(interval_s=0.05) as alone:
        time.sleep(0.3)
    with PeakMemory(interval_s=0.05) as together:
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDS.format(size=SIZE)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.3)
        child.kill()
        child.wait()

    assert SIZE * 0.95 < together.bytes - alone.bytes < SIZE * 1.3
