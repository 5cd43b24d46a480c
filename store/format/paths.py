"""The names of a store's files, and the advice that errors about them give."""

import re
from pathlib import Path

SHARD_NAME = re.compile(r"u[0-9]{8,}-[0-9a-f]{64}\.h5")

EXTRACT = "run the same `stage2 extract` again"
VERIFY = "run `stage2 store verify`"
REPAIR = "run `stage2 store repair` or extract again"


class StorePaths:
    """The files and folders of the store in folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / "STORE.json"  # describes the store and names its shards
        self.skipped = root / "skipped.jsonl"  # the planned items that could not be stored
        self.shards = root / "shards"
        self.temporary = root / ".tmp"  # files that are not published yet
        self.quarantine = root / "quarantine"  # damaged files
        self.lock = root / ".lock"  # its text says that the folder is a store
        self.image_cache = root / ".images.json"  # sha256 of images; not part of the store, may be deleted

    def shard(self, name: str) -> Path:
        """The shard with the file name `name`."""
        return self.shards / name

    def shard_files(self) -> list[Path]:
        """Every file in the folder of shards that is named like one, sorted; some may be damaged or left over."""
        return sorted(file for file in self.shards.glob("u*.h5") if SHARD_NAME.fullmatch(file.name))


def shard_name(number: int, sha256: str) -> str:
    """The file name of unit `number`'s shard, whose bytes have this sha256."""
    return f"u{number:08d}-{sha256}.h5"


def checksum_in_name(shard: Path) -> str:
    """The sha256 that a shard's file name promises."""
    return shard.stem.partition("-")[2]
