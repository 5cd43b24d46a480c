"""Runs command lines under faults, each in a child of a process that has imported PyTorch: `tests.faults.fork_server`.

A command runs as in a process of its own, from `cli.process` to its exit. Only the processes that `compare` starts are
forked instead of spawned, to save imports.
"""

import os
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import classify.experiments.isolated
import cli
from tests.faults.fork_server import LIBRARY, arm, log_calls, serve

IMPORTED = (  # what the commands import when they run
    *("torch", "matplotlib.figure", "classify.pipeline", "classify.demo", "classify.evaluate.metrics"),
    *("classify.export.export", "classify.inference.predict", "classify.report.html", "classify.experiments.compare"),
    *("extract.repair", "extract.verify_data", "extract.synth.dataset", "store.commands.describe", "store.pack"),
)
STOPPED = 97  # exit code of a child that a signal ended before or after the command


def run_command(job: dict[str, Any], log: int) -> int:
    """Runs the command line `arguments` in the folder `folder`; its output goes to the files `stdout` and `stderr`."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(job["folder"])
    os.environ |= job.get("environment", {})
    LIBRARY.fault_share(job["state"].encode())
    os.environ["FAULT_STATE"] = job["state"]
    if not job.get("spawn"):
        classify.experiments.isolated.get_context = lambda _: get_context("fork")
    arm(job)
    if "record" in job:
        LIBRARY.fault_record(job["record"].encode())
    leave = os._exit

    def log_and_exit(code: int) -> None:
        log_calls(log)
        leave(code)

    os._exit = log_and_exit
    try:
        cli.process(job["arguments"])
    except KeyboardInterrupt:
        return STOPPED


if __name__ == "__main__":
    for module in IMPORTED:
        import_module(module)
    serve(run_command)
