"""The documentation names only files, modules, commands and options that exist, and covers every command and option."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import click

import cli

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = "configs|store|extract|classify|tests|docs|.ci"
FILE = re.compile(rf"(?:{FOLDERS})/[\w./-]*|[\w-]+\.(?:py|cfg)|\w+\.toml|[A-Z]+\.(?:md|cff)|LICENSE")
MODULE = re.compile(r"(?:configs|store|extract|classify|tests)(?:\.\w+)+")
NOT_OURS = {"STORE.json", "FILE.toml"}
OPTION = re.compile(r"--[a-z][a-z_-]*")
OPTION_PAGES = ("README.md", "docs/usage.md", "docs/store.md", "docs/fine-tuning.md", "docs/export.md")
SCRIPTS = {"train_resnet_stage2.py": "train", "run_resnet_training.py": "run"}


def inline_code(text: str) -> list[str]:
    """The pieces of code in single backticks."""
    return CODE.findall(FENCE.sub("", text))


def shell_lines(text: str) -> Iterator[str]:
    """The commands of the shell blocks, without comments."""
    for language, block in FENCE.findall(text):
        if language == "bash":
            yield from (line.partition("  #")[0].strip() for line in block.splitlines() if line.strip())


def stage2_arguments(line: str) -> list[str] | None:
    """The arguments of the `stage2` command, or of one of the guide's scripts, in a shell line; None without one."""
    words = shlex.split(line.replace("$(which stage2)", "stage2"))
    for position, word in enumerate(words):
        rest = [item.strip("[]") for item in words[position + 1 :] if item != "..."]
        if Path(word).name == "stage2":
            return rest
        if word in SCRIPTS:
            return [SCRIPTS[word], *rest]
    return None


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The click command that `words` name, and the words after its name."""
    command: click.Command = cli.stage2
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def commands(group: click.Group, name: str = "stage2") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    for key, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {key}")
        else:
            yield f"{name} {key}", command


def options_of(command: click.Command) -> set[str]:
    return {text for option in command.params for text in option.opts if text.startswith("--")} | {"--help"}


def spans() -> Iterator[tuple[str, str]]:
    """(page, code) of every piece of inline code."""
    for page, text in PAGES.items():
        yield from ((page, code) for code in inline_code(text))


def test_every_link_leads_to_a_file_and_a_section() -> None:
    broken = []
    for page, text in PAGES.items():
        for target, section in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
            path = (ROOT / page).parent / target if target else ROOT / page
            titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE) if path.suffix == ".md" else []
            sections = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            if not path.exists() or (section and section not in sections):
                broken.append((page, target, section))
    assert broken == []


def test_every_named_path_exists() -> None:
    paths = [(page, code) for page, code in spans() if FILE.fullmatch(code) and code not in NOT_OURS]
    assert len(paths) > 30
    assert [(page, code) for page, code in paths if not (ROOT / code).exists()] == []


def test_architecture_lists_every_file_and_its_picture_names_existing_ones() -> None:
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", PAGES["docs/architecture.md"], re.MULTILINE))
    product = [path for folder in FOLDERS.split("|")[:4] for path in (ROOT / folder).rglob("*.py")]
    names = {path.relative_to(ROOT).as_posix() for path in product if path.name != "__init__.py"}
    assert listed == names
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    drawn = re.findall(rf"(?:{FOLDERS})/[\w/.]*", picture)
    assert len(drawn) > 10
    assert [name for name in drawn if not (ROOT / name).exists()] == []


def test_every_name_is_in_the_file_that_is_named_with_it() -> None:
    places = [place for text in PAGES.values() for place in re.findall(r"`([\w.]+)`\s+in\s+`([\w/]+\.py)`", text)]
    assert len(places) > 15
    missing = []
    for name, path in places:
        defined = rf"(def|class) {name.split('.')[-1]}\b|^ *{name.split('.')[-1]}\b.*="
        if not re.search(defined, (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE):
            missing.append((name, path))
    assert missing == []


def test_every_named_module_and_import_exists() -> None:
    names = [name for _, code in spans() for name in MODULE.findall(code) if not FILE.fullmatch(code)]
    for text in PAGES.values():
        names += [name for line in shell_lines(text) for name in re.findall(r"-m (tests[\w.]+)", line)]
        examples = [ast.walk(ast.parse(block)) for language, block in FENCE.findall(text) if language == "python"]
        imports = [node for nodes in examples for node in nodes if isinstance(node, ast.ImportFrom)]
        names += [f"{node.module}.{alias.name}" for node in imports for alias in node.names]
    assert len(names) > 10
    assert [name for name in names if not module_or_attribute(name)] == []


def module_or_attribute(name: str) -> bool:
    """Whether `name` is a module of the repository, or an attribute of one."""
    if (ROOT / name.replace(".", "/")).with_suffix(".py").exists():
        return True
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute)


def test_every_shell_command_parses() -> None:
    parsed = 0
    for text in PAGES.values():
        for line in shell_lines(text):
            words = stage2_arguments(line)
            if words is not None:
                command, arguments = command_of(words)
                command.make_context(
                    "stage2", arguments, parent=click.Context(cli.stage2, **cli.stage2.context_settings)
                )
                parsed += 1
    assert parsed > 20


def test_every_named_option_exists() -> None:
    everywhere = set().union(*(options_of(command) for _, command in commands(cli.stage2))) | {"--version"}
    unknown = []
    for page, code in spans():
        if code.startswith("stage2 ") and code.split()[1].islower():
            command, _ = command_of(code.split()[1:])
            unknown += [(page, code) for option in OPTION.findall(code) if option not in options_of(command)]
        elif page in OPTION_PAGES:
            unknown += [(page, code) for option in OPTION.findall(code) if option not in everywhere]
    assert unknown == []


def test_every_command_and_option_is_documented() -> None:
    documented = " ".join(" ".join([*inline_code(PAGES[page]), *shell_lines(PAGES[page])]) for page in OPTION_PAGES)
    missing = [name for name, _ in commands(cli.stage2) if f"`{name}" not in PAGES["docs/usage.md"]]
    for name, command in commands(cli.stage2):
        options = options_of(command) - {"--help"}
        missing += [f"{name} {option}" for option in options if not re.search(rf"{option}\b", documented)]
    assert missing == []


def test_citation_and_package_agree() -> None:
    package = ConfigParser()
    package.read(ROOT / "setup.cfg", encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for line in (f"version: {package['metadata']['version']}", f"  - name: {package['metadata']['author']}"):
        assert f"\n{line}\n" in citation
