"""Checks documents that are loaded from files (JSON, checkpoints) against a schema, before anything uses their values.

A schema is a plain value:

- a type: a value of exactly this type. `float` also takes an int; numbers must be finite and below 2**63.
- (schema, ...): a value that fits one of them; `None` stands for null.
- [schema]: a list of such items.
- {"name": schema, ...}: an object with at least these names. A name that ends with "?" may be missing.
- {str: schema}: an object that maps any names to such values; it may list names that must exist as well.
"""

from pathlib import Path
from typing import Any

from configs.errors import Stage2Error
from configs.printable import printable

Schema = Any
_WORDS = {
    **{str: "text", int: "an integer", float: "a number", bool: "true or false", dict: "an object", list: "a list"},
    type(None): "null",
}


def check_document(path: Path, value: object, schema: Schema, error: type[Stage2Error], remedy: str) -> None:
    """Checks that `value`, which was read from the file `path`, fits `schema`.

    Raises:
        Stage2Error: of class `error`; the message names the file, the first wrong field, what it is and what was
            expected, and ends with `remedy`.
    """
    problem = _problem(value, schema, "")
    if problem:
        raise error(f"{path}: {printable(problem)}; {remedy}")


def fits(value: object, schema: Schema) -> bool:
    """Whether `value` fits `schema`."""
    return not _problem(value, schema, "")


def _problem(value: Any, schema: Schema, field: str) -> str:
    """The first way in which `value` does not fit; "" if it does."""
    if isinstance(schema, tuple):
        problems = [_problem(value, type(None) if item is None else item, field) for item in schema]
        return "" if "" in problems else problems[0]
    if isinstance(schema, type):
        return "" if _is_a(value, schema) else _message(field, value, _WORDS.get(schema, schema.__name__))
    if isinstance(schema, list):
        return _list_problem(value, schema[0], field)
    return _object_problem(value, schema, field)


def _list_problem(value: Any, schema: Schema, field: str) -> str:
    if type(value) is not list:
        return _message(field, value, "a list")
    problems = (_problem(item, schema, f"{field}[{index}]") for index, item in enumerate(value))
    return next(filter(None, problems), "")


def _object_problem(value: Any, schema: dict[Any, Schema], field: str) -> str:
    if type(value) is not dict:
        return _message(field, value, "an object")
    for key in value:
        if not isinstance(key, str):
            return _message(f"a name in {field or 'the document'}", key, "text")
    for name, part in _fields(value, schema):
        where = f"{field}.{name}" if field else name
        problem = _problem(value[name], part, where) if name in value else f"{where} is missing"
        if problem:
            return problem
    return ""


def _fields(value: dict[str, Any], schema: dict[Any, Schema]) -> list[tuple[str, Schema]]:
    """The names that `value` must have, or may have and has, with their schemas."""
    required = {name: part for name, part in schema.items() if name is not str and not name.endswith("?")}
    optional = {name[:-1]: part for name, part in schema.items() if name is not str and name.endswith("?")}
    others = {name: schema[str] for name in value if name not in required | optional} if str in schema else {}
    return [*required.items(), *((name, part) for name, part in optional.items() if name in value), *others.items()]


def _is_a(value: Any, kind: type) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) < 2**63  # excludes NaN too
    if kind is int:
        return type(value) is int and abs(value) < 2**63
    return type(value) is kind


def _message(field: str, value: object, expected: str) -> str:
    simple = isinstance(value, (str, float, bool, type(None))) or (isinstance(value, int) and abs(value) < 2**200)
    found = ascii(value) if simple else type(value).__name__
    return f"{printable(field[:200]) or 'the document'} is {found[:60]}, not {expected}"
