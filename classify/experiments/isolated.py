"""One training in a process of its own, so that its peak memory is its own."""

import json
import resource
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

import configs.errors
from classify.pipeline import train
from classify.report.log import console
from configs.errors import Stage2Error
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.device import pick_device

_STATUS = Path("/proc/self/status")


def train_in_child(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
    """The content of the run's final_results.json, with `peak_memory`: bytes, and `memory`: of what.

    On CUDA that is what PyTorch had allocated at most, on the CPU the largest resident size of the whole process,
    Python and the libraries included, extraction and baselines too. Log lines go to standard error.

    Raises:
        Stage2Error: of the kind that `classify.pipeline.train` raised, or because the process died.
    """
    context = get_context("spawn")  # a forked one would start with this process's memory
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(config, options, sender), daemon=True)
    child.start()
    sender.close()
    try:
        answer: dict[str, Any] = json.loads(receiver.recv_bytes())
    except EOFError as error:
        child.join()
        raise Stage2Error(
            f"the training of {config.checkpoint_dir} died with exit code {child.exitcode}; -9 is for want of memory: "
            f"use a smaller --batch_size or fewer --num_workers, and run the same command again"
        ) from error
    child.join()
    if "error" in answer:
        raise getattr(configs.errors, answer["error"])(answer["message"])
    return answer


def _child(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    try:
        with console(sys.stderr):
            results = train(config, options).results
        answer = results | _peak(pick_device(config.device))
    except Stage2Error as error:
        answer = {"error": _public(type(error)), "message": str(error)}
    except KeyboardInterrupt:
        sys.exit(130)  # the parent was interrupted as well, and says so
    sender.send_bytes(json.dumps(answer).encode())


def _public(kind: type[Stage2Error]) -> str:
    """The name of the error, or of the nearest one above it that takes nothing but a message."""
    return next(parent.__name__ for parent in kind.__mro__ if parent.__module__ == configs.errors.__name__)


def _peak(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"peak_memory": torch.cuda.max_memory_allocated(device), "memory": "GPU"}
    return {"peak_memory": _peak_resident(), "memory": "process"}


def _peak_resident() -> int:
    """Bytes. Linux's getrusage counts what the parent had when it started the child, so /proc is asked first."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
