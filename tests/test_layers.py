"""The structure of the code: which parts may import which, the size of files, and no code loaded from files.

Each rule is a function from sources (path -> text) to a list of violations. It is applied to the product, and
to small examples that show that it can fail.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

import pytest

from tests.sources import ENTRY_POINTS, LAYERS, PRODUCT, ROOT, Sources, read_sources

HEAVY = {"torch", "torchvision", "h5py", "numpy", "faiss", "matplotlib"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
LOADERS = {"pickle.load", "pickle.loads", "torch.distributed.checkpoint", "torch.jit.load"}
MAX_FILES = 14  # in a folder, its __init__.py not counted
MIN_LINES, MAX_LINES = 30, 300  # of a product file
MAX_FUNCTION = 50  # lines, from `def` to the end of the body


TESTS = read_sources("tests")


def imports_of(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields (module, imported names) of each import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), tuple(alias.name for alias in node.names)


def modules_of(text: str) -> set[str]:
    """The dotted names that a source imports; `from a import b` gives both `a` and `a.b`."""
    imports = list(imports_of(ast.parse(text)))
    return {module for module, _ in imports} | {f"{module}.{name}" for module, names in imports for name in names}


def module_name(path: str) -> str:
    """The dotted name of the module at `path`."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def upward_imports(sources: Sources) -> list[str]:
    """Imports of a later layer, and relative imports, which hide the layer."""
    violations = []
    for path, text in sources.items():
        layer = module_name(path).split(".")[0]
        later = LAYERS[LAYERS.index(layer) + 1 :] if layer in LAYERS else ()
        wrong = {name for name in modules_of(text) if name.split(".")[0] in (*later, *ENTRY_POINTS, "tests", "")}
        violations += [f"{path} imports {name}" for name in sorted(wrong)]
    return violations


def import_cycles(sources: Sources) -> list[str]:
    """Cycles among the parts of a layer (its folders and its own files), and among the files of a folder."""
    modules = {module_name(path): modules_of(text) for path, text in sources.items()}
    parents = {name[:end] for name in modules for end, character in enumerate(name) if character == "."}
    return [cycle for parent in sorted(parents) if (cycle := _cycle_in(parent, modules))]


def _cycle_in(parent: str, modules: dict[str, set[str]]) -> str:
    """A cycle among the direct children of package `parent`, written out; "" without one."""
    depth = parent.count(".") + 2
    graph: dict[str, set[str]] = {}
    for name, imported in modules.items():
        if name.startswith(f"{parent}."):
            child = ".".join(name.split(".")[:depth])
            inside = {other for other in imported if other.startswith(f"{parent}.")}
            graph.setdefault(child, set()).update({".".join(other.split(".")[:depth]) for other in inside} - {child})
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def foreign_imports(sources: Sources, allowed: set[str]) -> list[str]:
    """Imports other than of the product, the standard library and `allowed`."""
    known = {*LAYERS, *sys.stdlib_module_names, *allowed}
    return [
        f"{path} imports {name}"
        for path, text in sources.items()
        for name in sorted({module.split(".")[0] for module in modules_of(text)} - known)
    ]


def in_layer(layer: str, sources: Sources = PRODUCT) -> Sources:
    """The files of one layer."""
    return {path: text for path, text in sources.items() if path.startswith(f"{layer}/")}


def test_imports_run_one_way() -> None:
    assert upward_imports(PRODUCT) == []
    assert import_cycles(PRODUCT) == []


def test_store_needs_no_torch_and_configs_only_the_standard_library() -> None:
    for path, text in in_layer("store").items():
        commands = {"click"} if path.startswith("store/commands/") else set()
        assert foreign_imports({path: text}, {"numpy", "h5py", "faiss", "tqdm"} | commands) == []
    for path, text in in_layer("configs").items():
        assert foreign_imports({path: text}, {"click"} if path == "configs/options.py" else set()) == []


def test_the_import_rules_can_fail() -> None:
    assert upward_imports({"store/a.py": "import extract.job"}) == ["store/a.py imports extract.job"]
    assert upward_imports({"store/a.py": "def f():\n    from classify import x"})  # inside a function
    assert upward_imports({"store/a.py": "from . import b"})
    assert not upward_imports({"extract/a.py": "import store.b\nimport torch", "cli.py": "import classify.x"})
    between_folders = {"a/x/one.py": "from a.y import two", "a/y/two.py": "", "a/y/three.py": "import a.x.four"}
    assert import_cycles(between_folders) == ["a.x <- a.y <- a.x"]
    assert import_cycles({"a/x/one.py": "from a.x.two import f", "a/x/two.py": "import a.x.one"})
    assert import_cycles({"a/x/one.py": "import a.two", "a/two.py": "from a.x import one"})
    assert import_cycles({"a/x/one.py": "from a.y import two", "a/y/two.py": "from a.z import w"}) == []
    assert foreign_imports({"store/a.py": "import torch.nn"}, {"numpy"}) == ["store/a.py imports torch"]


def heavy_modules(code: str) -> set[str]:
    """The slow modules that a process has loaded after running `code`."""
    program = f"import sys\ntry:\n    {code}\nfinally:\n    print('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_heavy_module() -> None:
    assert heavy_modules("import cli; cli.main(['--help'])") == set()
    assert heavy_modules("import numpy") == {"numpy"}


def size_violations(sources: Sources) -> list[str]:
    """Files and functions that are too long, short product files, and product folders with too many files."""
    violations = []
    for path, text in sources.items():
        lines = len(text.splitlines())
        may_be_short = path.endswith("__init__.py") or path.startswith("tests/")
        if lines > MAX_LINES or (lines < MIN_LINES and not may_be_short):
            violations.append(f"{path} has {lines} lines")
        violations += [
            f"{path}: {name} has {length} lines" for name, length in functions_of(text) if length > MAX_FUNCTION
        ]
    modules = [path for path in sources if not path.endswith("__init__.py") and not path.startswith("tests/")]
    folders = Counter(str(PurePosixPath(path).parent) for path in modules)
    return violations + [f"{folder} has {count} files" for folder, count in folders.items() if count > MAX_FILES]


def functions_of(text: str) -> Iterator[tuple[str, int]]:
    """Yields (name, number of lines) of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def undocumented_folders(sources: Sources) -> list[str]:
    """Folders without an __init__.py that says what is inside."""
    folders = {str(PurePosixPath(path).parent) for path in sources} - {"."}
    documented = {
        folder for folder in folders if ast.get_docstring(ast.parse(sources.get(f"{folder}/__init__.py", "")))
    }
    return sorted(folders - documented)


def test_sizes_of_files_functions_and_folders() -> None:
    assert (
        size_violations({path: text for path, text in PRODUCT.items() if module_name(path) not in ENTRY_POINTS}) == []
    )
    assert size_violations(TESTS) == []


def test_every_folder_says_what_is_inside() -> None:
    assert undocumented_folders(PRODUCT) == []


def test_the_shape_rules_can_fail() -> None:
    assert size_violations({"a/x.py": "x = 1\n" * 29}) == ["a/x.py has 29 lines"]
    assert size_violations({"a/x.py": "x = 1\n" * 301}) == ["a/x.py has 301 lines"]
    assert size_violations({"a/x.py": "x = 1\n" * 300, "a/__init__.py": ""}) == []
    function = "class A:\n    def f(self):\n" + "        x = 1\n" * MAX_FUNCTION
    assert size_violations({"a/x.py": function}) == ["a/x.py: f has 51 lines"]
    assert size_violations({f"a/{number}.py": "x = 1\n" * 30 for number in range(15)}) == ["a has 15 files"]
    assert size_violations({"tests/x.py": "x = 1\n" * 301, "tests/y.py": ""}) == ["tests/x.py has 301 lines"]
    assert undocumented_folders({"a/x.py": "", "a/__init__.py": "x = 1"}) == ["a"]
    assert undocumented_folders({"a/x.py": "", "b/x.py": "", "b/__init__.py": '"""B."""'}) == ["a"]


def test_no_test_module_imports_another() -> None:
    assert imported_tests(TESTS) == []
    assert imported_tests({"tests/a.py": "from tests.store import test_b"}) == ["tests/a.py imports tests.store.test_b"]


def imported_tests(sources: Sources) -> list[str]:
    """Imports of test modules."""
    names = {path: sorted(modules_of(text)) for path, text in sources.items()}
    return [f"{path} imports {name}" for path in names for name in names[path] if ".test_" in name]


def code_from_files(text: str) -> list[str]:
    """Expressions in a source that could run code stored in a file."""
    tree = ast.parse(text)
    violations = []
    for module, names in imports_of(tree):
        if module.split(".")[0] in PICKLES and (module, names) != ("pickle", ("UnpicklingError",)):
            violations.append(module)
        dotted = {module, *(f"{module}.{name}" for name in names)}
        violations += [name for name in dotted if name.startswith("torch.distributed.checkpoint")]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        function = ast.unparse(call.func)
        arguments = {item.arg: ast.unparse(item.value) for item in call.keywords}
        if function == "torch.load" and "weights_only" not in arguments:
            violations.append(function)
        if arguments.get("weights_only", "True") != "True" or arguments.get("allow_pickle", "False") != "False":
            violations.append(ast.unparse(call))
        if function in {"eval", "exec", "compile", "__import__"}:
            violations.append(function)
    # torch.jit.load is allowed on bytes that this process has just made
    in_memory = {id(call.func) for call in calls if call.args and ast.unparse(call.args[0]).startswith("io.BytesIO(")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in in_memory and ast.unparse(node) in LOADERS:
            violations.append(ast.unparse(node))
    return violations


def test_nothing_runs_code_out_of_files() -> None:
    assert {path: wrong for path, text in PRODUCT.items() if (wrong := code_from_files(text))} == {}


@pytest.mark.parametrize(
    ("allowed", "examples"),
    [
        (
            False,
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
                "import torch\ntorch.distributed.checkpoint.load(x)",
                "eval(text)",
            ],
        ),
        (
            True,
            [
                "from pickle import UnpicklingError",
                "torch.load(p, weights_only=True)",
                "torch.jit.load(io.BytesIO(made))",
            ],
        ),
    ],
    ids=["refused", "allowed"],
)
def test_examples_of_code_in_files(allowed: bool, examples: list[str]) -> None:
    assert [example for example in examples if bool(code_from_files(example)) == allowed] == []
