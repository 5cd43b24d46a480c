"""Whether the files that a command has left are whole, each read by an independent reader of its format."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from classify.model.checkpoint import load_checkpoint
from configs.errors import Stage2Error
from store.format.manifest import COMPLETE
from store.open import read_manifest
from store.reader import load_store


def is_temporary(path: Path) -> bool:
    """Whether a file has a temporary name, or is in a folder that has one."""
    return path.name.endswith(".tmp") or any(part.endswith(".partial") for part in path.parts)


def faulty_files(paths: Iterable[Path], known: frozenset[str] = frozenset()) -> list[str]:
    """The files that are damaged, incomplete or of no known kind, with the reason.

    Args:
        known: sha256 of files whose format has no reader here: exported models.
    """
    faults = []
    for path in paths:
        if is_temporary(path) or path.parent.name == "quarantine":  # damaged files are kept there for a look
            continue
        reader = READERS.get(path.suffix or path.name)
        try:
            if reader is not None:
                reader(path)
            elif hashlib.sha256(path.read_bytes()).hexdigest() not in known:
                faults.append(f"{path} is not whole")
        except (OSError, ValueError, KeyError, SyntaxError, Stage2Error) as error:
            faults.append(f"{path} is not whole: {error}")
    return faults


def mixed_runs(paths: Iterable[Path]) -> list[str]:
    """Run folders whose results are those of another model than best_model.pth."""
    faults = []
    for path in paths:
        model = path.with_name("best_model.pth")
        if path.name != "final_results.json" or not model.is_file():
            continue
        checkpoint, results = load_checkpoint(model), json.loads(path.read_text())
        if results["config"] != json.loads(json.dumps(checkpoint.info.config.to_dict())):
            faults.append(f"{path} has the results of another configuration than best_model.pth")
        elif results["best_epoch"] != checkpoint.epoch:
            faults.append(f"{path} has the results of epoch {results['best_epoch']}, best_model.pth {checkpoint.epoch}")
    return faults


def _read_image(path: Path) -> None:
    if not path.read_bytes().endswith((b"IEND\xaeB`\x82", b"\xff\xd9")):  # Pillow accepts a PNG without its end
        raise ValueError("the image ends early")
    with Image.open(path) as image:
        image.load()


def _read_lines(path: Path) -> None:
    for line in path.read_text().splitlines():
        json.loads(line)


def _read_checkpoint(path: Path) -> None:
    load_checkpoint(path, resume=path.name == "last.pth")


def _read_page(path: Path) -> None:
    if not path.read_text().endswith("</html>\n"):
        raise ValueError("the page ends early")


def _read_table(path: Path) -> None:
    lines = path.read_text().splitlines()
    if not path.read_text().endswith("\n") or not lines[-1].startswith("- "):
        raise ValueError("the table ends early")


def _read_features(path: Path) -> None:
    if path.parent.name != "shards":
        load_store(path)  # a packed store
    elif hashlib.sha256(path.read_bytes()).hexdigest() not in path.name:
        raise ValueError("the shard does not match its name")


def _read_json(path: Path) -> None:
    json.loads(path.read_text())
    if path.name == "STORE.json" and read_manifest(path.parent).state == COMPLETE:
        load_store(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".pth": _read_checkpoint,
    ".png": _read_image,
    ".jpg": _read_image,
    ".html": _read_page,
    ".md": _read_table,
    ".h5": _read_features,
    ".log": Path.read_text,  # lines are appended; the last one may be incomplete
    ".lock": Path.read_bytes,
    ".stage2-run": Path.read_bytes,
    ".txt": Path.read_text,
}
