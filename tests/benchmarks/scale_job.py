"""A job of JRDB's size in a process of its own: prints its seconds, peak memory and results as JSON.

Runs as `python -c`, in the folder of the version to measure, which may be an earlier one. The first argument is the
clock: "processor" seconds of all threads, which other jobs on the machine hardly change, or seconds on the "wall".
Then "train" STORE BATCH, or "plan" DATA.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def train(store: str, batch: str) -> dict[str, Any]:
    """Loads a store and trains a head for one epoch, baselines and test included."""
    from classify.train.cached import train_cached
    from configs.resnet_stage2_config import ResNetStage2Config
    from store.reader import load_store

    start = time.monotonic()
    features = load_store(Path(store))
    load_seconds = time.monotonic() - start
    with tempfile.TemporaryDirectory() as folder:
        config = ResNetStage2Config(
            freeze_backbone=True, batch_size=int(batch), epochs=1, learning_rate=1e-3, device="cpu",
            checkpoint_dir=f"{folder}/run",
        )  # fmt: skip
        run = train_cached(features, [config], {"name": "noise", "weights_sha256": "0"})[0]
    seconds = time.monotonic() - start
    results = {name: run.results[name] for name in ("baselines", "test_accuracy", "test_mpca")}
    parts = {name: run.results["seconds"][name] for name in ("baselines", "train", "evaluate")}
    rest = seconds - load_seconds - sum(parts.values())
    return {"load": load_seconds, "prepare": rest, **parts, "results": results}


def plan(data: str) -> dict[str, Any]:
    """Plans the extraction of all people: what `stage2 extract` does before the first crop."""
    from configs.extraction_config import ExtractionConfig
    from extract.backbones.weights import load_backbone
    from extract.images.identity import ImageIdentities
    from extract.job import plan_manifest, requested_manifest
    from extract.units.plan import DEFAULT_UNIT_SIZE

    config = ExtractionConfig(data_path=data, weights="random", device="cpu")
    loaded = load_backbone(config.backbone, config.weights)
    start = time.monotonic()
    identities = ImageIdentities()
    requested = requested_manifest(config, loaded, identities)
    units, manifest = plan_manifest(config, requested, DEFAULT_UNIT_SIZE, identities)
    seconds = time.monotonic() - start
    counts = {"boxes": sum(unit.persons for unit in units), "pairs": sum(unit.pairs for unit in units)}
    return {"plan": seconds, "results": counts | {"plan": manifest.plan_digest, "data": manifest.fingerprint}}


def peak() -> float:
    """The peak memory of this process so far, in GB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    if sys.argv[1] == "processor":
        time.monotonic = time.process_time  # also the clock of a run's own report
    done = {"train": train, "plan": plan}[sys.argv[2]](*sys.argv[3:])
    print(json.dumps(done | {"peak_gb": peak()}))
