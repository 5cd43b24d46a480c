"""Forks one child per job from a process that has imported everything, so that a run under faults takes milliseconds.

Start it with the fault library preloaded. It reads one JSON job per line from standard input, and answers each with
one line of JSON. This module runs the store's workloads; `tests.faults.commands.server` runs whole commands.
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error
from tests.faults.workload import WORKLOADS

NO_FAULT = [127, 0, 0, 0, 0]  # counts all calls
UNEXPECTED = 99  # exit code of a child after an error that is not a Stage2Error
HANGS = 98  # status of a job that does not end within LIMIT
LIMIT = 120.0  # seconds
LIBRARY = ctypes.CDLL(None)  # the preloaded functions are part of this process

RunChild = Callable[[dict[str, Any], int], int]  # runs a job and logs to a descriptor; returns the exit code


def serve(run_child: RunChild) -> None:
    """Runs jobs until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(_run_job(json.loads(line), run_child)), flush=True)


def _run_job(job: dict[str, Any], run_child: RunChild) -> dict[str, Any]:
    """Runs a job in a child process; returns its exit status, its duration and the lines that it wrote."""
    read_end, write_end = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # a kill reaches the processes that it starts, but not this server
        os.close(read_end)
        os._exit(run_child(job, write_end))
    os.close(write_end)
    if job.get("kill_after") is not None:
        _send_signal(child, job["kill_after"], job.get("signal", signal.SIGKILL))
    text, hangs = _read_all(read_end, child)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": HANGS if hangs else status, "seconds": time.monotonic() - start, "lines": text.splitlines()}


def _send_signal(child: int, seconds: float, number: int) -> None:
    """Signals the child after some seconds: SIGTERM to itself alone, others to all its processes, as a terminal."""
    time.sleep(seconds)
    try:
        (os.kill if number == signal.SIGTERM else os.killpg)(child, number)
    except ProcessLookupError:  # not in its own group yet
        os.kill(child, number)


def _read_all(descriptor: int, child: int) -> tuple[str, bool]:
    """Everything that the child and the processes that it starts write, until they end; kills them after LIMIT."""
    parts, hangs = [], False
    end = time.monotonic() + LIMIT
    while True:
        if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
            os.killpg(child, signal.SIGKILL)
            hangs, end = True, time.monotonic() + LIMIT
            continue
        part = os.read(descriptor, 1 << 16)
        if not part:
            os.close(descriptor)
            return b"".join(parts).decode(errors="backslashreplace"), hangs
        parts.append(part)


def arm(job: dict[str, Any]) -> None:
    """Arms the fault of a job for the calls on files under its root."""
    fault = job.get("fault", NO_FAULT)
    LIBRARY.fault_arm(job["root"].encode(), *(ctypes.c_int(v) for v in fault[:3]), *map(ctypes.c_long, fault[3:]))


def log_calls(log: int) -> None:
    """Logs how many calls the library has counted."""
    LIBRARY.fault_count.restype = ctypes.c_long
    os.write(log, f"calls {LIBRARY.fault_count()}\n".encode())


def _run_workload(job: dict[str, Any], log: int) -> int:
    """Runs a job in this process; returns the error's exit code, 0 for success, or `UNEXPECTED`."""
    if "largest_file" in job:  # writes beyond the limit fail in the kernel
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    arm(job)
    try:
        WORKLOADS[job["work"]](Path(job["path"]), job["units"], log)
    except Stage2Error as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return error.exit_code
    except BaseException as error:
        os.write(log, f"error {type(error).__name__} {error}\n".encode())
        return UNEXPECTED
    log_calls(log)
    return 0


if __name__ == "__main__":
    serve(_run_workload)
