"""Finds the store that serves a run, by recipe and data instead of by name."""

from pathlib import Path

from configs.errors import StoreError
from store.manifest import COMPLETE, Manifest, read_manifest

STORES = Path("stores")


def store_for(plan: Manifest, folder: Path = STORES) -> Path:
    """A finished store under `folder`, packed or not, that holds all of `plan`; else the path where its own belongs."""
    own = folder / f"{plan.recipe.backbone}-{plan.recipe.crop_size}px-{plan.fingerprint[:12]}.store"
    if (own / "STORE.json").exists():
        return own
    for path in sorted([*folder.glob("*.store"), *folder.glob("*.h5")]):
        try:
            found = read_manifest(path)
        except StoreError:  # a damaged neighbour is not ours to judge
            continue
        if found.state == COMPLETE and serves(found, plan):
            return path
    return own


def serves(found: Manifest, plan: Manifest) -> bool:
    """Whether a store holds all that `plan` asks for: the same recipe and data, its selection or a wider one."""
    return found.recipe == plan.recipe and found.scenes == plan.scenes and found.selection.serves(plan.selection)
