"""Text from data is printed without control characters and without markup."""

import pytest

from configs.printable import html_text, markdown_text, printable, printable_lines


@pytest.mark.parametrize("text", ["cafe-2", "Zusammen gehen", "一緒に歩く", "a.b_c (1)", ""])
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert printable(text) == printable_lines(text) == markdown_text(text) == html_text(text) == text


def test_h6_control_characters_are_escaped() -> None:
    assert printable("a\x1b[31m\x07\nb\u202e\x9b\ud800") == r"a\x1b[31m\x07\nb\u202e\x9b\ud800"
    assert printable_lines("a\x1b]0;x\x07\n\tb\r") == "a\\x1b]0;x\\x07\n\tb\\r"


def test_h6_markdown_and_html_are_escaped() -> None:
    assert markdown_text("a|b\n<b>`[x](y)") == r"a\|b\\n&lt;b&gt;\`\[x\](y)"
    assert html_text("<script>\n\"'&\x1b") == "&lt;script&gt;\n&quot;&#x27;&amp;\\x1b"
