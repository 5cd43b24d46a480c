"""The command line's surface is frozen: the names, types and defaults of all options and arguments."""

import click
import pytest

import cli

TRAIN = """\
--backbone resnet18|resnet34|resnet50|hog resnet18
--visual_dim integer 256
--fusion concat|bilinear|add concat
--freeze_backbone flag
--weights text imagenet
--crop_size integer 112
--epochs integer 50
--batch_size integer 16
--lr float 0.0001
--weight_decay float 1e-05
--balance none|loss|sampler loss
--no_geometric flag
--no_scene_context flag
--data_path text ../dataset
--frame_interval integer 1
--panorama auto|yes|no auto
--num_workers integer 4
--max_skipped float 0.01
--store text ""
--feature_memory float 0.0
--checkpoint_dir text ""
--overwrite flag
--resume auto|no no
--device auto|cpu|cuda auto
--log_interval integer 10
--seed integer 42
--seeds integer 1
--step fused|autograd fused
--config path
--json flag
"""
SURFACE = {
    "extract": """\
--data_path text ../dataset
--store text ""
--backbone resnet18|resnet34|resnet50|hog resnet18
--weights text imagenet
--crop_size integer 112
--frame_interval integer 1
--panorama auto|yes|no auto
--persons all|paired all
--views integer 1
--dtype float16|float32 float16
--precision float32|bfloat16|float16|int8 float32
--batch_size integer 0
--num_workers integer 4
--device auto|cpu|cuda auto
--on_error skip|fail skip
--max_skipped float 0.01
--retry_skipped flag
--update flag
--remove_missing flag
--crops flag
--json flag
""",
    "train": TRAIN,
    "finetune": """\
--from text ""
--batchnorm frozen|train frozen
--freeze_blocks integer 0
--backbone_lr float 0.0
--layer_decay float 1.0
--augment flag
--amp flag
--accumulate integer 1
--checkpointing flag
--crop_cache float 1.0
"""
    + TRAIN,
    "run": """\
preset text
"""
    + TRAIN,
    "evaluate": """\
run_folder path required
--store path
--data_path path
--split train|val|test test
--max_skipped float 0.01
--panorama auto|yes|no
--weights text ""
--device auto|cpu|cuda auto
--json flag
""",
    "predict": """\
run_folder path required
--data_path path required
--out path required
--pairs labelled|near|all
--draw path
--frame_interval integer 1
--scene text
--max_skipped float 0.01
--panorama auto|yes|no
--overwrite flag
--weights text ""
--device auto|cpu|cuda auto
--json flag
""",
    "report": """\
run_folder path required
--out path
--overwrite flag
""",
    "export": """\
run_folder path required
--format onnx|pt2|safetensors|torchscript required
--out path required
--overwrite flag
--weights text ""
--json flag
""",
    "compare": """\
--data_path text
--out path required
--backbones text hog,resnet18
--modes text cached,end_to_end
--weights text
--crop_size integer
--epochs integer
--batch_size integer
--lr float
--seed integer
--frame_interval integer
--panorama auto|yes|no
--num_workers integer
--device auto|cpu|cuda
--max_skipped float 0.01
--config path
--json flag
""",
    "demo": """\
--out path stage2-demo
--seed integer 0
""",
    "synth": """\
out path required
--scenes integer
--frames integer
--people integer 18
--seed integer 0
--labels path
""",
    "store info": """\
path path required
--json flag
""",
    "store verify": """\
path path required
--data_path path
--json flag
""",
    "store repair": """\
path path required
--data_path text ../dataset
--weights text ""
--batch_size integer 0
--num_workers integer 4
--device auto|cpu|cuda auto
--json flag
""",
    "store pack": """\
path path required
out path required
--overwrite flag
""",
}


def surface(command: click.Command) -> str:
    """One line for each parameter, in the order of help: name, type or choices, and default."""
    return "".join(f"{line(parameter)}\n" for parameter in command.params)


def line(parameter: click.Parameter) -> str:
    kind, default = parameter.type.name, parameter.default
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return f"{parameter.opts[0]} flag"
    if isinstance(parameter.type, click.Choice):
        kind = "|".join(parameter.type.choices)
    if parameter.required:
        default = "required"
    if default == "":
        default = '""'
    known = isinstance(default, str | int | float)  # else click's marker for no default
    return f"{parameter.opts[0]} {kind} {default}" if known else f"{parameter.opts[0]} {kind}"


@pytest.mark.parametrize("name", list(SURFACE))
def test_names_types_and_defaults(name: str) -> None:
    command: click.Command = cli.stage2
    for part in name.split():
        assert isinstance(command, click.Group)
        command = command.commands[part]
    assert surface(command) == SURFACE[name]


def test_every_command_is_listed() -> None:
    names = {name for name in cli.stage2.commands if name != "store"}
    assert set(SURFACE) == names | {f"store {name}" for name in cli.store_group.commands}
