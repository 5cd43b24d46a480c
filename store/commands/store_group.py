"""`stage2 store`: what a store holds, and one file made of it."""

from pathlib import Path

import click

from configs import options


@click.group("store")
def store_group() -> None:
    """Inspect, check, repair or pack a feature store."""


@store_group.command()
@options.store_path
@options.as_json
def info(path: Path, as_json: bool) -> None:
    """Print a store's recipe, counts and size, without reading features."""
    from store.commands.describe import store_text
    from store.crops import info_with_crops

    options.print_result(info_with_crops(path), as_json, store_text)


@store_group.command()
@options.store_path
@click.argument("out", metavar="OUT.h5", type=click.Path(path_type=Path))
@options.overwrite
def pack(path: Path, out: Path, overwrite: bool) -> None:
    """Pack a store into one HDF5 file, which every command accepts as a store."""
    from store.pack import pack_store

    click.echo(f"packed: {out} ({pack_store(path, out, overwrite) / 1e6:,.1f} MB)")
