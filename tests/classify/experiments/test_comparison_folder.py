"""The folder of a comparison: marked and locked by it, and never somebody else's."""

from pathlib import Path
from typing import Any

import pytest

from classify.experiments.compare import compare
from classify.pipeline import train
from configs.errors import ConfigError, LockedError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.annotations.jrdb import LABELS
from tests.jobs import SCENES
from tests.jrdb_folder import write_folder

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


def train_here(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
    return train(config, options).results | {"peak_memory": 2**30, "memory": "process"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = write_folder(tmp_path_factory.mktemp("jrdb"), SCENES, frames=3, people=7)
    return {"crop_size": 32, "epochs": 2, "device": "cpu", "num_workers": 0, "data_path": str(data)}


def test_w7_a_folder_with_other_files_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "hog_cached").mkdir()
    (tmp_path / "hog_cached" / "config.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"give another --out"):
        compare(tmp_path, ["hog"], ["cached"], settings, train=train_here)
    assert [path.name for path in tmp_path.rglob("*")] == ["hog_cached", "config.json"]
    labels = Path(settings["data_path"]) / LABELS
    for folder in (labels, labels / "compared"):
        with pytest.raises(ConfigError, match="input"):
            compare(folder, ["hog"], ["cached"], settings, train=train_here)


def test_w4_two_comparisons_in_one_folder_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    def train_and_compare(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
        with pytest.raises(LockedError) as error:
            compare(tmp_path, ["hog"], ["cached"], settings, train=train_here)
        assert error.value.exit_code == 75
        return train_here(config, options)

    compare(tmp_path, ["hog"], ["cached"], settings, train=train_and_compare)
