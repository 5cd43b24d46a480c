"""End-to-end training by several processes that torchrun starts; each forwards its share of a batch's persons.

The loss has terms of the whole batch, so the gradients of parts of a batch cannot simply be averaged, as
DistributedDataParallel does. Instead the features of all shares are gathered, every rank computes head and loss of the
whole batch with the same random numbers, the gradient flows back through the rank's own share, and the backbone's
gradients are summed. So every rank has the gradient of the whole batch and the same parameters and history.
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
from configs.ranks import rank, restarts, world_size


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Opens the process group of all ranks within the block; does nothing if there is one rank.

    Raises:
        DeviceError: there are fewer CUDA devices than ranks on this machine.
    """
    if world_size() == 1:
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
    # torchrun keeps its store over a restart; without the prefix the new processes would find the addresses of the dead
    store = dist.PrefixStore(f"attempt {restarts()}", store)  # type: ignore[attr-defined]
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=number, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_distributed() -> bool:
    """Whether this process trains together with others, inside `process_group`."""
    return dist.is_available() and dist.is_initialized()


def barrier() -> None:
    """Waits for all ranks."""
    if is_distributed():
        dist.barrier()


def broadcast(values: Tensor) -> Tensor:
    """Broadcasts rank 0's values in place, so that all ranks make the same decision; returns them."""
    if is_distributed():
        dist.broadcast(values, src=0)
    return values


def local_share(persons: NDArray[np.int64]) -> NDArray[np.int64]:
    """This rank's part of the persons (P,) of a batch."""
    return np.array_split(persons, world_size())[rank()] if is_distributed() else persons


def all_gather_features(features: Tensor, persons: int) -> Tensor:
    """Gathers the features (P, D) of all `persons` of a batch from the ranks; gradients flow to this rank's share."""
    if not is_distributed():
        return features
    whole: Tensor = _Gather.apply(features, persons)
    return whole


def sync_gradients(backbone: Iterable[nn.Parameter], head: Iterable[nn.Parameter]) -> None:
    """Sums the backbone's gradients over all ranks and takes the head's gradients from rank 0, in one all-reduce.

    Every rank has the head's gradients already, but a GPU may round them differently and the ranks must not diverge.
    """
    if not is_distributed():
        return
    gradients = [parameter.grad for parameter in backbone if parameter.grad is not None]
    for parameter in head:
        if parameter.grad is not None:
            gradients.append(parameter.grad.mul_(float(rank() == 0)))
    if gradients:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class _Gather(torch.autograd.Function):
    """Forward: concatenates the shares of all ranks. Backward: takes this rank's slice of the common gradient."""

    @staticmethod
    def forward(context: Any, features: Tensor, persons: int) -> Tensor:
        sizes = [len(part) for part in np.array_split(np.empty(persons), world_size())]
        padded = features.new_zeros((max(sizes), features.shape[1]))  # shares differ by one at most
        padded[: len(features)] = features
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        context.start, context.size = sum(sizes[: rank()]), len(features)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][context.start : context.start + context.size], None
