"""What an extraction spent its time on, and what would make it faster."""

WORK = ("read", "decode", "crop", "forward")
_REMEDY = {
    "read": "put the images on a faster disk",
    "decode": "more cores and --num_workers, or a larger --frame_interval",
    "crop": "more cores and --num_workers, or a smaller --crop_size",
    "forward": "a GPU, a smaller --backbone or --crop_size, --persons paired, or a larger --frame_interval",
    "write": "put the store on a faster disk",
    "device": "--precision bfloat16, a larger --batch_size, or a smaller --backbone or --crop_size",
}
_STARVED = 0.2  # share of the time; a device that waits longer than that for its crops is not what bounds the job


def bound(seconds: dict[str, float], on_cpu: bool) -> str:
    """One sentence on the stage that bounds the job, and what to change; "" where nothing was forwarded.

    Args:
        seconds: by stage, as `Tally` has them: "wait", "write" and "total" of the job, the others summed over threads.
        on_cpu: whether the cores forwarded too; else a device did, while the threads read ahead of it.
    """
    if not seconds["forward"]:
        return ""
    if seconds["write"] > seconds["total"] / 2:
        return f"writing takes {seconds['write'] / seconds['total']:.0%} of the time; faster: {_REMEDY['write']}"
    work = {stage: seconds[stage] for stage in (WORK if on_cpu else WORK[:-1])}
    if not on_cpu and seconds["wait"] < _STARVED * seconds["total"]:
        return f"the device is busy, and waits for crops {_share(seconds['wait'], seconds['total'])} of the time; " + (
            f"faster: {_REMEDY['device']}"
        )
    stage = max(work, key=lambda name: work[name])
    return f"{stage} takes {_share(work[stage], sum(work.values()))} of the threads' work; faster: {_REMEDY[stage]}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"
