"""The learning rate of each step."""

import math


def learning_rate(step: int, base: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `base` over `warmup_steps`, then half a cosine towards 0 at `total_steps`; steps count from 0.

    The first step of the warm-up is base / warmup_steps, not 0, and the last step of all is still above 0.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
