"""Makes text from data (names of scenes, frames and classes) safe to print.

Such text can contain escape sequences that change a terminal, line breaks that imitate other lines, and the special
characters of Markdown and HTML.
"""

import html
import re

_MARKDOWN = re.compile(r"([\\`|\[\]])")


def printable(text: object) -> str:
    """`text` on one line: control, format and other unprintable characters are written as Python escapes."""
    characters = str(text)
    if characters.isprintable():
        return characters
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in characters)


def printable_lines(text: object) -> str:
    """As `printable`, but keeps line breaks and tabs, for text that this program has put together."""
    parts = re.split(r"([\n\t])", str(text))
    return "".join(part if part in ("\n", "\t") else printable(part) for part in parts)


def markdown_text(text: object) -> str:
    """`text` for one line or one table cell of a Markdown page: neither markup nor HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(printable(text), quote=False))


def html_text(text: object) -> str:
    """`text` for HTML content and quoted attributes; keeps line breaks."""
    return html.escape(printable_lines(text))
