"""Forks one child per job from a process that has imported everything, so that a run under faults takes milliseconds.

Start it with the fault library preloaded. It reads one JSON job per line from standard input, and answers each with
one line of JSON.
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
from tests.faults.workload import WORKLOADS

NO_FAULT = [63, 0, 0, 0, 0]  # counts all calls
UNEXPECTED = 99  # exit code of a child after an error that is not a Stage2Error
_LIBRARY = ctypes.CDLL(None)  # the preloaded functions are part of this process


def main() -> None:
    """Runs jobs until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(_run_job(json.loads(line))), flush=True)


def _run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Runs a job in a child process; returns its exit status and the lines that it wrote."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        os._exit(_run_child(job, write_end))
    os.close(write_end)
    if job.get("kill_after") is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)
    with os.fdopen(read_end) as pipe:
        lines = pipe.read().splitlines()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, "lines": lines}


def _run_child(job: dict[str, Any], log: int) -> int:
    """Runs a job in this process; returns the error's exit code, 0 for success, or `UNEXPECTED`."""
    if "largest_file" in job:  # writes beyond the limit fail in the kernel
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    fault = job.get("fault", NO_FAULT)
    _LIBRARY.fault_arm(job["root"].encode(), *(ctypes.c_int(v) for v in fault[:3]), *map(ctypes.c_long, fault[3:]))
    try:
        WORKLOADS[job["work"]](Path(job["path"]), job["units"], log)
    except Stage2Error as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return error.exit_code
    except BaseException as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return UNEXPECTED
    os.write(log, f"calls {_LIBRARY.fault_count()}\n".encode())
    return 0


if __name__ == "__main__":
    main()
