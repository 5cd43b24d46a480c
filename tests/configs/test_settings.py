"""Settings are declared once; the lists of what may differ between runs follow from the roles."""

import pytest

from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import FREE_ON_RESUME, HEAD, MACHINE, TRAINING, names_with_role

NAMES = {
    HEAD: (
        *("backbone_name", "crop_size", "visual_feature_dim", "fusion_strategy", "hidden_dim"),
        *("use_geometric", "use_scene_context", "classes", "split"),
    ),
    FREE_ON_RESUME: (
        *("weights", "accumulate", "checkpointing", "crop_cache", "data_path", "num_workers"),
        *("checkpoint_dir", "device", "log_interval"),
    ),
    TRAINING: (
        *("freeze_backbone", "batchnorm", "freeze_blocks", "backbone_lr", "layer_decay", "augment", "amp"),
        *("accumulate", "checkpointing", "crop_cache", "epochs", "batch_size", "learning_rate", "patience"),
        *("checkpoint_dir", "device"),
    ),
    MACHINE: ("weights", "data_path", "num_workers", "checkpoint_dir", "device"),
}


@pytest.mark.parametrize("role", list(NAMES))
def test_the_fields_of_each_role(role: str) -> None:
    assert names_with_role(ResNetStage2Config, role) == NAMES[role]


def test_class_names_are_in_the_order_of_the_classes() -> None:
    assert ResNetStage2Config().class_names == ("Walking Together", "Standing Together", "Sitting Together")
