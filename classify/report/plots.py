"""The plots of a run: confusion matrix and training curves. They need matplotlib (the extra "plots")."""

import io
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classify.evaluate.history import Record, best_record
from classify.run_folder import RunFolder
from configs.printable import printable
from store.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger("stage2")
INK, FAINT = "#1f2933", "#d5dbe1"
BLUE, ORANGE = "#2563a8", "#d9722e"


def plot_run(folder: Path, results: dict[str, Any], history: list[Record]) -> None:
    """Writes confusion_matrix.png and curves.png, or logs what to install. Raises StorageError."""
    if find_spec("matplotlib") is None:
        _log.info("No plots were drawn because matplotlib is not installed; run pip install 'stage2[plots]'.")
        return
    _write_png(RunFolder(folder).confusion_matrix, confusion_figure(results))
    _write_png(RunFolder(folder).curves, curves_figure(history))


def confusion_figure(results: dict[str, Any]) -> "Figure":
    """The confusion matrix; rows are ground truth, cells show the fraction of the row (also as colour) and a count."""
    from matplotlib.figure import Figure

    counts = np.array(results["test_confusion_matrix"])  # (C, C)
    # a dollar sign would start a formula
    names = [printable(name).replace("$", r"\$").replace(" ", "\n", 1) for name in results["classes"]]
    size = 2.6 + 1.15 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(fraction, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(counts.shape):
        text = f"{fraction[row, column]:.0%}\n{counts[row, column]:,}" if counts[row].sum() else "–"
        color = "white" if fraction[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=11, linespacing=1.4)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted", labelpad=8)
    axes.set_ylabel("annotated", labelpad=8)
    present, total = results["test_classes_present"], len(names)
    summary = (
        f"accuracy {results['test_accuracy']:.3f}   MPCA {results['test_mpca']:.3f} over {present} of {total} classes"
    )
    _title(axes, f"Test split, {results['test_pairs']:,} pairs", summary)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def curves_figure(history: list[Record]) -> "Figure":
    """Losses on the left, validation accuracy and MPCA on the right; a dashed line marks the best epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in history]
    best = best_record(history)
    trained = [record for record in history if record["train_loss"] is not None]
    _line(left, [record["epoch"] for record in trained], [record["train_loss"] for record in trained], "train", BLUE)
    _line(left, epochs, [record["val_loss"] for record in history], "validation", ORANGE)
    _line(right, epochs, [record["val_accuracy"] for record in history], "accuracy", BLUE)
    _line(right, epochs, [record["val_mpca"] for record in history], "MPCA", ORANGE)
    right.plot(best["epoch"], best["val_mpca"], "o", color=ORANGE, markersize=7, zorder=3, clip_on=False)
    right.set_ylim(0.0, 1.0)
    _title(left, "Loss", "training with dropout, validation without")
    _title(right, "Validation", f"best MPCA {best['val_mpca']:.3f} in epoch {best['epoch']}")
    for axes in (left, right):
        axes.axvline(best["epoch"], color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _line(axes: "Axes", x: list[int], y: list[float], name: str, color: str) -> None:
    axes.plot(x, y, color=color, linewidth=1.8, label=name, marker="o" if len(x) < 3 else None, zorder=2)


def _title(axes: "Axes", title: str, subtitle: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=13, color=INK, fontweight="bold")
    axes.text(0.0, 1.02, subtitle, transform=axes.transAxes, fontsize=10, color="#52606d", va="bottom")


def _write_png(path: Path, figure: "Figure") -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    publish(path, buffer.getvalue())
