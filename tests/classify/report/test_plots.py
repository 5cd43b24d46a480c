"""A run's plots are PNG files; without matplotlib a log line says what to install."""

import io
import logging
from pathlib import Path

import pytest

from classify.report.plots import confusion_figure, plot_run
from classify.run_folder import RunFolder
from tests.factories import make_features, make_tables, small_config, train_head


@pytest.mark.usefixtures("quick_baselines")
def test_a_run_has_plots(tmp_path: Path) -> None:
    run = train_head(make_features(make_tables()), small_config(tmp_path / "run", epochs=2))
    folder = RunFolder(run.folder)
    for path in (folder.confusion_matrix, folder.curves):
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_matplotlib_a_log_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("classify.report.plots.find_spec", lambda _: None)
    with caplog.at_level(logging.INFO, "stage2"):
        plot_run(tmp_path, {}, [])
    assert "stage2[plots]" in caplog.text
    assert not list(tmp_path.iterdir())


def test_h6_class_names_are_text_in_the_plot() -> None:
    results = {
        **{"test_confusion_matrix": [[1, 0], [0, 1]], "classes": ["a $\\frac$ b", "c\x1b\nd"], "test_pairs": 2},
        **{"test_classes_present": 2, "test_accuracy": 1.0, "test_mpca": 1.0},
    }
    figure = confusion_figure(results)
    figure.savefig(io.BytesIO(), format="png")  # an invalid formula raises here
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["a\n\\$\\frac\\$ b", "c\\x1b\\nd"]
