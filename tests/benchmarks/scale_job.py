"""A job of JRDB's size in a process of its own: prints its seconds, peak memory and results as JSON.

Runs as `python -c`, with the folder of the version to measure as working directory, so that it can measure an earlier
version too. Arguments: "train" STORE BATCH, or "plan" DATA.
"""

import json
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any


def train(store: str, batch: str) -> dict[str, Any]:
    """Loads a store and trains a head for one epoch, baselines and test included."""
    from classify.train.cached import train_cached
    from configs.resnet_stage2_config import ResNetStage2Config
    from store.reader import load_store

    start = perf_counter()
    features = load_store(Path(store))
    load_seconds, load_peak = perf_counter() - start, _peak()
    with tempfile.TemporaryDirectory() as folder:
        config = ResNetStage2Config(
            freeze_backbone=True, batch_size=int(batch), epochs=1, learning_rate=1e-3, device="cpu",
            checkpoint_dir=f"{folder}/run",
        )  # fmt: skip
        run = train_cached(features, [config], {"name": "noise", "weights_sha256": "0"})[0]
    seconds = perf_counter() - start
    results = {name: run.results[name] for name in ("baselines", "test_accuracy", "test_mpca")}
    parts = {name: run.results["seconds"][name] for name in ("baselines", "train", "evaluate")}
    return {"load": load_seconds, **parts, "seconds": seconds, "load_peak_gb": load_peak, "results": results}


def plan(data: str) -> dict[str, Any]:
    """Plans the extraction of all people: what `stage2 extract` does before the first crop."""
    from configs.extraction_config import ExtractionConfig
    from extract.backbones.weights import load_backbone
    from extract.images.identity import ImageIdentities
    from extract.job import plan_manifest, requested_manifest
    from extract.units.plan import DEFAULT_UNIT_SIZE

    config = ExtractionConfig(data_path=data, weights="random", device="cpu")
    loaded = load_backbone(config.backbone, config.weights)
    start = perf_counter()
    identities = ImageIdentities()
    requested = requested_manifest(config, loaded, identities)
    units, manifest = plan_manifest(config, requested, DEFAULT_UNIT_SIZE, identities)
    seconds = perf_counter() - start
    counts = {"boxes": sum(unit.persons for unit in units), "pairs": sum(unit.pairs for unit in units)}
    return {"seconds": seconds, "results": counts | {"plan": manifest.plan_digest, "data": manifest.fingerprint}}


def _peak() -> float:
    """The peak memory of this process so far, in GB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9


if __name__ == "__main__":
    job = {"train": train, "plan": plan}[sys.argv[1]]
    print(json.dumps(job(*sys.argv[2:]) | {"peak_gb": _peak()}))
