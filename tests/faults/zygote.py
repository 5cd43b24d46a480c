"""A process that has everything imported and forks one child a job, so that a run under faults costs milliseconds.

Started with the fault library preloaded; reads one JSON job a line on standard input, answers one JSON line each.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error
from tests.faults.workload import WORK

_LIBRARY = ctypes.CDLL(None)  # the preloaded functions are the process's own


def main() -> None:
    """Serves jobs until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os._exit(_work(job, writing))
    os.close(writing)
    if job.get("kill_after") is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, "lines": lines}


def _work(job: dict[str, Any], log: int) -> int:
    """The child's exit code: the error's own, 0 where all went well, 99 for what should never come out."""
    if "largest_file" in job:  # a real limit of the kernel: writes beyond it fail
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    fault = job.get("fault", [63, 0, 0, 0, 0])
    _LIBRARY.fault_arm(job["root"].encode(), *(ctypes.c_int(v) for v in fault[:3]), *map(ctypes.c_long, fault[3:]))
    try:
        WORK[job["work"]](Path(job["path"]), job["units"], log)
    except Stage2Error as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return error.exit_code
    except BaseException as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return 99
    os.write(log, f"calls {_LIBRARY.fault_count()}\n".encode())
    return 0


if __name__ == "__main__":
    main()
