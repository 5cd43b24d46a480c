"""The autograd step: gradient accumulation, mixed precision, resuming, and out-of-memory messages."""

import copy
from pathlib import Path

import pytest
import torch

from classify.data.batches import PairBatch
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.train.autograd_step import AutogradStep
from classify.train.out_of_memory import report_out_of_memory
from configs.errors import DeviceError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.resnet import Backbone
from tests.factories import small_config

CPU = torch.device("cpu")


def model_of(config: ResNetStage2Config) -> Stage2Model:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", False)
    backbone.checkpointing = config.checkpointing
    return Stage2Model(backbone, build_head(config, backbone.out_dim)).train()


def step_of(config: ResNetStage2Config, model: Stage2Model) -> AutogradStep:
    return AutogradStep(model, Objective.from_config(config, (0.5, 1.0, 1.5), CPU), config)


def batch_of(seed: int, pairs: int = 6, persons: int = 7) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randint(0, 256, (persons, 3, 32, 32), dtype=torch.uint8, generator=generator)
    rows = torch.stack([torch.arange(pairs) % persons, (torch.arange(pairs) + 1) % persons])
    rows[:, -1] = torch.tensor([persons - 2, persons - 1])
    label = torch.randint(0, 3, (pairs,), generator=generator)
    return PairBatch(crops, rows[0], rows[1], torch.rand((pairs, 8), generator=generator), label)


def gradients(model: Stage2Model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("parts", [2, 3, 50])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_accumulated_gradients_equal_the_gradient_of_the_batch(parts: int, checkpointing: bool) -> None:
    plain, config = small_config(dropout=0.3), small_config(dropout=0.3, accumulate=parts, checkpointing=checkpointing)
    results = []
    for one in (plain, config):
        model = model_of(one).double()
        batch = batch_of(0)
        model.backbone.mean, model.backbone.std = model.backbone.mean.double(), model.backbone.std.double()
        model.head.double()
        step = step_of(one, model)
        torch.manual_seed(5)  # dropout is drawn once a step, for all parts
        spatial = batch.spatial.double()
        loss = step.backward(PairBatch(batch.persons, batch.a, batch.b, spatial, batch.label))
        results.append((loss, gradients(model)))
    assert results[0][0] == pytest.approx(results[1][0].item(), rel=1e-12)
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        assert torch.allclose(gradient, results[1][1][name], rtol=1e-8, atol=1e-12), name


def test_accumulation_changes_only_the_rounding_in_float32() -> None:
    losses = []
    for config in (small_config(dropout=0.0), small_config(dropout=0.0, accumulate=3)):
        step = step_of(config, model_of(config))
        losses.append([step(batch_of(number), 1e-3).item() for number in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_frozen_backbone_gets_no_gradients(parts: int) -> None:
    config = small_config(accumulate=parts, dropout=0.0)
    model = model_of(config)
    model.backbone.freeze_stages(4)
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    step_of(config, model)(batch_of(0), 1e-3)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.state_dict().items())


@pytest.mark.parametrize("parts", [1, 3])
def test_a_batch_without_persons_has_zero_gradients(parts: int) -> None:
    """A rank without persons takes part in the sum of gradients."""
    config = small_config(accumulate=parts)
    model = model_of(config)
    step = step_of(config, model)
    step._head_backward = lambda features, _batch: features.sum().backward()  # type: ignore[method-assign]
    step.backward(PairBatch(torch.empty((0, 3, 32, 32), dtype=torch.uint8), *[torch.zeros(1)] * 4))
    results = gradients(model)
    assert len(results) == 60  # of the backbone
    assert all(gradient.eq(0).all() for gradient in results.values())


def test_accumulation_forwards_fewer_crops_at_a_time() -> None:
    config = small_config(accumulate=3)
    model = model_of(config)
    sizes: list[int] = []
    model.backbone.resnet.conv1.register_forward_hook(lambda _module, given, _out: sizes.append(len(given[0])))
    step_of(config, model)(batch_of(0), 1e-3)
    assert sizes == [3, 2, 2, 3, 2, 2]  # once without a graph, once with one


def test_mixed_precision_is_close_to_float32() -> None:
    results = []
    for amp in (False, True):
        config = small_config(amp=amp, dropout=0.0)
        model = model_of(config)
        step = step_of(config, model)
        with torch.no_grad():
            features = step._features(batch_of(0).persons)
        assert features.dtype == torch.float32
        results.append((features, step(batch_of(0), 0.0)))
    worst = (results[0][0] - results[1][0]).abs().max() / results[0][0].abs().max()
    assert 1e-5 < worst < 0.05  # 8 bits of mantissa, 20 layers
    assert results[0][1].item() == pytest.approx(results[1][1].item(), rel=0.05)


@pytest.mark.parametrize("amp", [False, True])
def test_a_restored_optimizer_state_gives_the_same_steps(amp: bool) -> None:
    config = small_config(amp=amp, dropout=0.0)
    model = model_of(config)
    step = step_of(config, model)
    for number in range(2):
        step(batch_of(number), 1e-3)
    state, parameters = copy.deepcopy(step.state_dict()), copy.deepcopy(model.state_dict())
    losses = [step(batch_of(number), 1e-3).item() for number in range(2, 5)]
    again = model_of(config)
    again.load_state_dict(parameters)
    resumed = step_of(config, again)
    resumed.load_state_dict(state)
    assert [resumed(batch_of(number), 1e-3).item() for number in range(2, 5)] == losses


@pytest.mark.parametrize(
    ("largest", "message"), [(5, "--batch_size 4 fits"), (1, "--batch_size 1 fits"), (0, "not even one")]
)
def test_out_of_memory_names_the_remedies_and_the_largest_batch_that_fits(largest: int, message: str) -> None:
    def fill(pairs: int) -> None:
        if pairs > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(DeviceError, match=message) as raised, report_out_of_memory(16) as trial:
        trial.train = fill
        fill(16)
    for remedy in ("--freeze_backbone", "--accumulate", "--checkpointing", "--amp"):
        assert remedy in str(raised.value)


def test_no_batch_is_tried_in_main_memory() -> None:
    def fill(_pairs: int) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(DeviceError, match="use a smaller --batch_size"), report_out_of_memory(16) as trial:
        trial.train = lambda pairs: pytest.fail(f"tried {pairs}")
        fill(16)


def test_other_errors_are_not_changed() -> None:
    with pytest.raises(RuntimeError, match="something else"), report_out_of_memory(16):
        raise RuntimeError("something else")
    with pytest.raises(DeviceError, match="--feature_memory"), report_out_of_memory(16):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_end_to_end_run_finds_the_largest_batch_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from classify.data.crops import FrameCrops
    from classify.train.end_to_end import train_end_to_end
    from tests.factories import TinyBackbone, make_tables, write_images

    tables = make_tables()
    paths = write_images(tables, tmp_path / "images")
    backward = AutogradStep.backward

    def full(self: AutogradStep, batch: PairBatch) -> torch.Tensor:
        if len(batch.label) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backward(self, batch)

    monkeypatch.setattr(AutogradStep, "backward", full)
    config = small_config(tmp_path / "run")
    with pytest.raises(DeviceError, match="--batch_size 2 fits"):
        train_end_to_end(tables, FrameCrops(tables, paths, config.crop_size), TinyBackbone(), config, {})  # type: ignore[arg-type]
