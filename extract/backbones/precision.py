"""Which number formats this CPU computes a backbone in, and which one would be faster."""

from collections.abc import Sequence

import torch

from configs.errors import DeviceError
from extract.backbones.hog import HOG
from store.format.recipe import INT8

FLOAT32, BFLOAT16 = "float32", "bfloat16"
# as torch.cpu.get_capabilities names them: of x86, x86 and Arm; of x86
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
_INT8_INSTRUCTIONS = ("avx512_vnni", "amx_int8")


def check_cpu_precision(precision: str, backbone: str) -> None:
    """Checks that this CPU computes the backbone named `backbone` in `precision`.

    Raises:
        DeviceError: it does not, or more slowly than in float32. (A recipe may not name a precision that is not used.)
    """
    if precision == FLOAT32:
        return
    if backbone == HOG:
        raise DeviceError(f"the CPU computes {HOG} only in float32; use --precision float32, not {precision}")
    if precision != BFLOAT16:
        raise DeviceError(f"--precision {precision} needs a CUDA device; use --precision float32 on the CPU")
    if not has_native_bfloat16():
        raise DeviceError(
            f"PyTorch finds no instructions for {BFLOAT16} in this CPU (AVX-512 BF16, AMX or Arm's BF16), which would "
            f"be slower than float32; use --precision float32, or a CUDA device"
        )


def _has_one_of(instructions: Sequence[str]) -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in instructions)


def has_native_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16 numbers, and PyTorch the library that uses them."""
    has_onednn = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return has_onednn and _has_one_of(_INSTRUCTIONS)


def has_native_int8() -> bool:
    """Whether this CPU has instructions that multiply and add 8-bit integers (VNNI), which make int8 the fastest."""
    return _has_one_of(_INT8_INSTRUCTIONS)


def faster_precision(precision: str, backbone: str, on_cpu: bool) -> str:
    """Says which --precision would be faster on this CPU, and what it costs; "" if none would."""
    if not on_cpu or precision != FLOAT32 or backbone == HOG:
        return ""
    faster = []
    if has_native_bfloat16():
        faster.append(f"--precision {BFLOAT16}, about 1.7 times the speed, features differ by about 2 %")
    if has_native_int8():
        faster.append(f"--precision {INT8} (extra onnx), about 3 times the speed, features differ by about 10 %")
    return f"this CPU computes these natively: {'; '.join(faster)}" if faster else ""
