"""End-to-end training by several processes, as torchrun starts them: each forwards its share of a batch's persons.

The loss has terms of the whole batch, so gradients of parts of it may not simply be averaged. Here each rank crops and
forwards a share of the batch's persons; their features are gathered, so that every rank computes head and loss of the
joint batch, with the same random numbers; the gradient goes back through the rank's own share, and the backbone's
gradients are summed. So every rank has the gradient of the joint batch, the same parameters and the same history
(DistributedDataParallel would average the losses of parts). Predictions are those of all samples on every rank.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.errors import DeviceError
from configs.ranks import rank, ranks, restarts


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """The process group of all ranks, for the length of the block; nothing where there is one rank.

    Raises:
        DeviceError: there are fewer CUDA devices than ranks on this machine.
    """
    if ranks() == 1:
        yield
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"torchrun started more processes than this machine has GPUs ({torch.cuda.device_count()}); "
                f"give it --nproc_per_node {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(local)
    store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    # torchrun keeps its store over a restart: without a name of their own the new processes would find the addresses
    # of the dead ones
    store = dist.PrefixStore(f"attempt {restarts()}", store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=number, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def together() -> bool:
    """Whether this process computes with others, inside `joined`."""
    return dist.is_available() and dist.is_initialized()


def wait_for_all() -> None:
    """Returns when every rank has come here."""
    if together():
        dist.barrier()


def from_first(values: Tensor) -> Tensor:
    """What rank 0 has of values that every rank has computed, so that all of them decide alike."""
    if together():
        dist.broadcast(values, src=0)
    return values


def share(persons: NDArray[np.int64]) -> NDArray[np.int64]:
    """This rank's part of the persons (P,) of a batch."""
    return np.array_split(persons, ranks())[rank()] if together() else persons


def gathered(features: Tensor, persons: int) -> Tensor:
    """The features (P, D) of all `persons` of a batch, from this rank's share of them; gradients flow to the share."""
    if not together():
        return features
    whole: Tensor = _Gather.apply(features, persons)
    return whole


def sum_gradients(shared_out: Iterable[nn.Parameter], joint: Iterable[nn.Parameter]) -> None:
    """Adds up the gradients of `shared_out` over all ranks, and takes those of `joint` from rank 0, in one message.

    Every rank has the joint gradients already; a GPU may round them otherwise, and the ranks must not drift apart.
    """
    if not together():
        return
    gradients = [parameter.grad for parameter in shared_out if parameter.grad is not None]
    for parameter in joint:
        if parameter.grad is not None:
            gradients.append(parameter.grad.mul_(float(rank() == 0)))
    if gradients:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class _Gather(torch.autograd.Function):
    """Forward: the shares of all ranks as one. Backward: of the joint gradient, which all ranks have, the own share."""

    @staticmethod
    def forward(context: Any, features: Tensor, persons: int) -> Tensor:
        sizes = [len(part) for part in np.array_split(np.empty(persons), ranks())]
        padded = features.new_zeros((max(sizes), features.shape[1]))  # shares differ by one at most
        padded[: len(features)] = features
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        context.start, context.size = sum(sizes[: rank()]), len(features)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][context.start : context.start + context.size], None
