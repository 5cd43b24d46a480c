"""Counts and timings of an extraction, and which stage limits its speed."""

from dataclasses import dataclass, field

STAGES = ("plan", "read", "decode", "crop", "wait", "forward", "write", "total")
_THREAD_STAGES = ("read", "decode", "crop", "forward")
_REMEDY = {
    "read": "put the images on a faster disk",
    "decode": "more cores and --num_workers, or a larger --frame_interval",
    "crop": "more cores and --num_workers, or a smaller --crop_size",
    "forward": "a GPU, a smaller --backbone or --crop_size, --persons paired, or a larger --frame_interval",
    "write": "put the store on a faster disk",
    "device": "--precision bfloat16, a larger --batch_size, or a smaller --backbone or --crop_size",
}
_MAX_IDLE = 0.2  # share of the time that a GPU may wait for crops and still count as the bottleneck


@dataclass
class JobStatistics:
    """Counts and timings of a job.

    `seconds` of read, decode, crop and forward are summed over the threads; those of the other stages are wall-clock
    time of the main thread, and "wait" is its time without a prepared frame.
    """

    frames_decoded: int = 0
    panoramas: int = 0  # decoded frames whose left and right edges touch
    crops_forwarded: int = 0
    rows_reused: int = 0  # features that were stored already, in this store or another one
    batch_size: int = 0  # the size in use at the end; 0 if the job ended before one was chosen
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def bottleneck(self, on_cpu: bool) -> str:
        """Names the stage that limits the job's speed and how to make it faster; "" if nothing was forwarded.

        Args:
            on_cpu: the threads also ran the backbone; otherwise a GPU did, while the threads prepared crops.
        """
        seconds, total = self.seconds, self.seconds["total"]
        if not seconds["forward"]:
            return ""
        if seconds["write"] > total / 2:
            return f"writing takes {seconds['write'] / total:.0%} of the time; faster: {_REMEDY['write']}"
        if not on_cpu and seconds["wait"] < _MAX_IDLE * total:
            waiting = f"{seconds['wait'] / total:.0%}"
            return f"the device is busy, and waits for crops {waiting} of the time; faster: {_REMEDY['device']}"
        work = {stage: seconds[stage] for stage in _THREAD_STAGES if on_cpu or stage != "forward"}
        stage = max(work, key=lambda name: work[name])
        share = f"{work[stage] / sum(work.values()):.0%}"
        return f"{stage} takes {share} of the threads' work; faster: {_REMEDY[stage]}"
