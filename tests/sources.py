"""The sources that the tests of the code's structure read."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
LAYERS = ("configs", "store", "extract", "classify", "cli")  # each may import itself and those before it
ENTRY_POINTS = ("train_resnet_stage2", "run_resnet_training")  # scripts that may import all layers
Sources = dict[str, str]  # path relative to the repository -> text


def read_sources(*names: str) -> Sources:
    """The Python files among `names` and in the folders among them."""
    paths = [
        path for name in names for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).rglob("*.py"))
    ]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


PRODUCT = read_sources(*LAYERS[:-1], "cli.py", *(f"{name}.py" for name in ENTRY_POINTS))
