"""Documents are compared with a declared schema; the first wrong field is named."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError
from configs.schema import check_document

SCHEMA = {"a": int, "b": [float], "c": {str: (float, None)}, "d?": {"e": str}, "f": bool}
GOOD = {"a": 1, "b": [1, 2.5], "c": {"x": None, "y": 0.5}, "f": True, "new": object()}


def problem(value: Any) -> str:
    with pytest.raises(DataError) as caught:
        check_document(Path("r.json"), value, SCHEMA, DataError, "restore it")
    return str(caught.value)


def test_a_document_that_fits_is_accepted() -> None:
    check_document(Path("r.json"), GOOD, SCHEMA, DataError, "restore it")
    check_document(Path("r.json"), GOOD | {"d": {"e": "text"}}, SCHEMA, DataError, "restore it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": True}, "a is True, not an integer"),
        ({"a": 2**63}, "a is 9223372036854775808, not an integer"),
        ({"a": 10**5000}, "a is int, not an integer"),
        ({"b": [1, float("nan")]}, "b[1] is nan, not a number"),
        ({"b": [float("inf")]}, "b[0] is inf, not a number"),
        ({"b": [10**400]}, "b[0] is int, not a number"),
        ({"b": {}}, "b is dict, not a list"),
        ({"c": {"x": "0.5"}}, "c.x is '0.5', not a number"),
        ({"c": []}, "c is list, not an object"),
        ({"d": {}}, "d.e is missing"),
        ({"f": 1}, "f is 1, not true or false"),
        ({"c": {"\x1b[2J": ""}}, r"c.\x1b[2J is '', not a number"),
    ],
)
def test_h2_the_wrong_field_is_named_with_what_was_found_and_expected(change: dict[str, Any], message: str) -> None:
    assert problem(GOOD | change) == f"r.json: {message}; restore it"


def test_h2_other_documents_are_refused() -> None:
    assert problem([]) == "r.json: the document is list, not an object; restore it"
    assert problem({}) == "r.json: a is missing; restore it"
    assert "a name in the document is 1, not text" in problem({1: 2})
