"""The commands of `stage2 store` that need a store's images or backbone: verify and repair."""

import sys
from pathlib import Path
from typing import Any

import click

from configs import options
from configs.errors import EXIT_FAULTY
from configs.extraction_config import ExtractionConfig
from configs.process.console import console


@click.command()
@options.store_path
@options.path_option("data_path", "JRDB-format folder; also reads every image and compares it with the store.")
@options.as_json
def verify(path: Path, data_path: Path | None, as_json: bool) -> int:
    """Check every byte of a store, and with --data_path its data; exit code 4 if something is wrong."""
    from extract.verify_data import verify as run
    from store.commands.describe import verify_text

    result = run(path, data_path).to_dict()
    options.print_result(result, as_json, verify_text)
    return 0 if result["sound"] else EXIT_FAULTY


_WEIGHTS = "The weights file of the backbone, if the store needs one."
_BATCH_SIZE = "Crops per batch, as in `extract`; on a GPU, use the extraction's value."


@click.command()
@options.store_path
@options.option(ExtractionConfig, "data_path")
@options.option(ExtractionConfig, "weights", default="", show_default=False, help=_WEIGHTS)
@options.option(ExtractionConfig, "batch_size", help=_BATCH_SIZE)
@options.options(ExtractionConfig, ("num_workers", "device"))
@options.as_json
def repair(path: Path, data_path: str, weights: str, as_json: bool, **compute: Any) -> None:
    """Recompute the damaged or missing shards of a store from its original data."""
    from extract.repair import ComputeOptions
    from extract.repair import repair as run
    from store.commands.describe import repair_text

    with console(sys.stderr if as_json else sys.stdout):
        result = run(path, Path(data_path), weights, ComputeOptions(**compute)).to_dict()
    options.print_result(result, as_json, repair_text)
