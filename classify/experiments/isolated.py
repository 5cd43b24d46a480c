"""Trains in a separate process, so that the peak memory of one training can be measured."""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

import configs.errors
from classify.pipeline import train
from configs.errors import EXIT_TERMINATED, Stage2Error
from configs.process.console import console
from configs.process.failures import sigterm_interrupts
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.device import pick_device

_GRACE = 10.0  # seconds for a child to end after SIGTERM
_STATUS = Path("/proc/self/status")


def train_and_send(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    """Runs in the child process: trains, and sends the results or the error as JSON."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with sigterm_interrupts(), console(sys.stderr):
            results = train(config, options).results
        message = results | _peak_memory(pick_device(config.device))
    except Stage2Error as error:
        message = {"error": error_class_name(type(error)), "message": str(error)}
    except KeyboardInterrupt:
        sys.exit(130)  # Ctrl-C reaches the parent process as well, which reports it
    sender.send_bytes(json.dumps(message).encode())


Target = Callable[[ResNetStage2Config, TrainOptions, Connection], None]


def train_in_subprocess(
    config: ResNetStage2Config, options: TrainOptions, target: Target = train_and_send
) -> dict[str, Any]:
    """Trains in a child process. Log lines go to standard error.

    Returns:
        The content of the run's final_results.json, with `peak_memory` in bytes and `memory`: "GPU" for the largest
        memory that PyTorch allocated on the GPU, "process" for the largest resident size of the whole process, which
        includes Python, libraries, extraction and baselines.

    Raises:
        Stage2Error: of the class that `classify.pipeline.train` raised, or because the child process died.
    """
    context = get_context("spawn")  # a forked process would start with this process's memory
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(config, options, sender), daemon=True)
    child.start()
    sender.close()
    try:
        message: dict[str, Any] = json.loads(receiver.recv_bytes())
        child.join()
    except EOFError as error:
        child.join()
        raise Stage2Error(
            f"the training of {config.checkpoint_dir} died with exit code {child.exitcode} (-9: out of memory); use a "
            f"smaller --batch_size or fewer --num_workers, and run the same command again"
        ) from error
    finally:
        _end(child)
    if "error" in message:
        raise getattr(configs.errors, message["error"])(message["message"])
    return message


def _end(child: BaseProcess) -> None:
    """Ends the child if it still runs because this process was interrupted."""
    if child.is_alive():
        child.terminate()
        child.join(_GRACE)
    if child.is_alive():
        child.kill()
        child.join()


def _end_with_parent() -> None:
    """Runs in a thread of the child: ends the child when the parent process is gone, however it died."""
    parent = parent_process()
    if parent is None:  # called in a process that is nobody's child
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(EXIT_TERMINATED)


def error_class_name(kind: type[Stage2Error]) -> str:
    """The name of the nearest class in configs.errors: unlike subclasses elsewhere, it can be raised with a message."""
    return next(parent.__name__ for parent in kind.__mro__ if parent.__module__ == configs.errors.__name__)


def _peak_memory(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"peak_memory": torch.cuda.max_memory_allocated(device), "memory": "GPU"}
    return {"peak_memory": peak_resident_bytes(), "memory": "process"}


def peak_resident_bytes() -> int:
    """The largest resident size of this process so far.

    /proc is preferred: Linux's getrusage includes the memory that the parent had when it started this process.
    """
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
