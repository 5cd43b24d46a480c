"""The rooms import one way, and no file reaches for what runs foreign code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("configs", "store", "extract", "classify", "cli")  # each may import itself and those before it
FILES = [path for room in ROOMS[:-1] for path in sorted((ROOT / room).rglob("*.py"))] + sorted(ROOT.glob("*.py"))


def imported(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the room"
            yield node.module or "", tuple(alias.name for alias in node.names)


def names(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    return list(imported(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = ROOMS[: ROOMS.index(room) + 1] if room in ROOMS else ROOMS
    for module, _ in names(path):
        top = module.split(".")[0]
        assert top not in ROOMS or top in allowed, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "store").rglob("*.py")), ids=lambda path: path.name)
def test_store_has_no_torch(path: Path) -> None:
    assert not [module for module, _ in names(path) if module.split(".")[0] in {"torch", "torchvision"}]


def test_configs_need_the_standard_library_only_and_the_command_line_click() -> None:
    for path in (ROOT / "configs").rglob("*.py"):
        heavy = {"numpy", "torch", "torchvision", "h5py", "faiss", "tqdm"}
        heavy |= {"click"} if path.name not in {"options.py", "process.py"} else set()
        assert not [module for module, _ in names(path) if module.split(".")[0] in heavy], path.name


def forbidden(source: str) -> list[str]:
    """What in `source` could run code out of a file."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    from_memory = {id(call.func) for call in calls if call.args and ast.unparse(call.args[0]).startswith("io.BytesIO(")}
    found = []
    for module, parts in imported(tree):
        if module.split(".")[0] in {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}:
            found += [] if (module, parts) == ("pickle", ("UnpicklingError",)) else [module]
        whole = {module, *(f"{module}.{part}" for part in parts)}
        found += [name for name in whole if name.startswith("torch.distributed.checkpoint")]
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            loose = (node.arg == "weights_only", node.arg == "allow_pickle")
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if (loose[0] and value is not True) or (loose[1] and value is not False):
                found.append(str(node.arg))
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text == "torch.jit.load" and id(node) in from_memory:
                continue
            if text in {"pickle.load", "pickle.loads", "torch.distributed.checkpoint", "torch.jit.load"}:
                found.append(text)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            found += [] if any(item.arg == "weights_only" for item in node.keywords) else ["torch.load"]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec", "compile", "__import__"}:
            found.append(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_out_of_files(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "from pickle import UnpicklingError, load",
        "torch.load(p)",
        "torch.jit.load(p)",
        "torch.jit.load(path.open())",
        "load = torch.jit.load",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=flag)",
        "np.load(p, allow_pickle=True)",
        "import torch.distributed.checkpoint as dcp",
        "from torch.distributed import checkpoint",
        "torch.distributed.checkpoint.load(x)",
        "eval(text)",
    ],
)
def test_the_rule_finds(source: str) -> None:
    assert forbidden(source)


@pytest.mark.parametrize(
    "source",
    ["from pickle import UnpicklingError", "torch.load(p, weights_only=True)", "torch.jit.load(io.BytesIO(made))"],
)
def test_the_rule_allows(source: str) -> None:
    assert not forbidden(source)
