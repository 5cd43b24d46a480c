"""skipped.jsonl: every item that a store leaves out, one JSON object a line, in the order of the plan."""

from collections.abc import Iterable

from store.shard import Skipped

SKIPPED = "skipped.jsonl"


def skipped_lines(items: Iterable[Skipped]) -> str:
    """The lines of `items`; the same store always has the same lines, and none where nothing was left out."""
    return "".join(f"{item.to_json()}\n" for item in items)
