"""A comparison as the guide's table."""

from typing import Any

from classify.checkpoint import CACHED

_HEADER = (
    "model",
    "validation accuracy",
    "MPCA",
    "test accuracy",
    "test MPCA",
    "training time",
    "extraction",
    "memory",
    "zero values",
)
_NOTHING = "-"


def compare_markdown(found: dict[str, Any]) -> str:
    """The page of a comparison (compare.json's content): the table, and what its figures mean."""
    classes, splits = found["classes"], found["pairs_per_class"]
    pairs = [
        f"- {name}: {sum(counts):,} pairs ({', '.join(f'{c} {n:,}' for c, n in zip(classes, counts, strict=True))})"
        for name, counts in splits.items()
    ]
    notes = [
        "All runs trained, validated and tested on the same pairs:",
        "",
        *pairs,
        "",
        "MPCA is the mean per-class accuracy; the validation figures are those of the epoch with the best MPCA, whose "
        "model was tested. Frozen models train the head on features that were extracted once. Memory is the peak of "
        + _memory_text(found["rows"])
        + ". Zero values is the share of zeros among the extracted features.",
    ]
    if any(row["extract_resumed"] for row in found["rows"]):
        notes.append("A time with ≥ leaves out what an earlier, interrupted comparison had extracted.")
    runs = [f"- {_model(row)}: `{row['run']}`, {row['epochs']} epochs" for row in found["rows"]]
    return "\n".join(["# Comparison", "", compare_table(found), "", *notes, "", *runs, ""])


def compare_table(found: dict[str, Any]) -> str:
    """The table alone, in Markdown, its columns padded to be read as they are."""
    rows = [_HEADER, *(_cells(row) for row in found["rows"])]
    for name, figures in found["baselines"].items():
        test = (f"{figures['accuracy']:.1%}", f"{figures['mpca']:.4f}")
        rows.append((name, _NOTHING, _NOTHING, *test, *[_NOTHING] * 4))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    extraction, zeros = _NOTHING, _NOTHING
    if row["mode"] == CACHED:
        extraction = ("≥ " if row["extract_resumed"] else "") + _duration(row["seconds_extract"])
        zeros = f"{row['zero_share']:.1%}"
    return (
        _model(row),
        f"{row['val_accuracy']:.1%}",
        f"{row['val_mpca']:.4f}",
        f"{row['test_accuracy']:.1%}",
        f"{row['test_mpca']:.4f}",
        _duration(row["seconds_train"]),
        extraction,
        f"{row['peak_memory'] / 2**30:.2f} GiB",
        zeros,
    )


def _model(row: dict[str, Any]) -> str:
    return f"{row['model']}, frozen" if row["mode"] == CACHED else str(row["model"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _memory_text(rows: list[dict[str, Any]]) -> str:
    """Every run is on the same device."""
    if rows[0]["memory"] == "GPU":
        return "what PyTorch allocated on the GPU"
    return "the whole process, Python, libraries, extraction and baselines included"
