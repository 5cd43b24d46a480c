"""How far int8 features are from float32 features: what an extraction measured on people whom it did not calibrate on.

Part of STORE.json, and of the checkpoints that are trained on the store.
"""

import base64
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 32  # held-out people whose features are kept, so that a trained head can compare its logits


@dataclass(frozen=True)
class Int8Record:
    """Measured on `crops` held-out people. An error is the length of the difference over the length of the feature."""

    crops: int
    cosine_mean: float
    cosine_min: float
    error_mean: float
    error_max: float
    float32: str  # base64 of the features (at most KEPT, D) as float16
    int8: str  # the same people's int8 features

    @classmethod
    def measure(cls, int8: NDArray[np.float32], float32: NDArray[np.float32]) -> "Int8Record":
        """Compares the features (N, D) of the same N > 0 people; the numbers are rounded to four digits."""
        one, two = int8.astype(np.float64), float32.astype(np.float64)
        length = np.maximum(np.linalg.norm(two, axis=1), 1e-12)
        cosine = (one * two).sum(1) / (length * np.maximum(np.linalg.norm(one, axis=1), 1e-12))
        error = np.linalg.norm(one - two, axis=1) / length
        return cls(
            crops=len(two),
            cosine_mean=round(float(cosine.mean()), 4),
            cosine_min=round(float(cosine.min()), 4),
            error_mean=round(float(error.mean()), 4),
            error_max=round(float(error.max()), 4),
            float32=_encode(float32),
            int8=_encode(int8),
        )

    @classmethod
    def from_dict(cls, values: Any) -> "Int8Record":
        """The record in a dict that was read from a file. Raises ValueError if a field is missing, unknown or wrong."""
        expected = {item.name: item.type for item in fields(cls)}
        if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != expected:
            raise ValueError("the fields of int8")
        record = cls(**values)
        one, two = record.samples()
        if one.shape != two.shape or not 0 < len(one) <= record.crops:
            raise ValueError("the features of int8")
        return record

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The numbers and the sentence, without the features."""
        kept = ("float32", "int8")
        return {name: value for name, value in self.to_dict().items() if name not in kept} | {"text": str(self)}

    def samples(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The int8 and the float32 features of the kept people, (at most KEPT, D). Raises ValueError if damaged."""
        return _decode(self.int8, self.crops), _decode(self.float32, self.crops)

    def __str__(self) -> str:
        return (
            f"of {self.crops} held-out people: cosine to float32 {self.cosine_mean:.4f} on average and at least "
            f"{self.cosine_min:.4f}; error {self.error_mean:.1%} of a feature's length on average and at most "
            f"{self.error_max:.1%}"
        )


def _encode(rows: NDArray[np.float32]) -> str:
    limit = np.finfo(np.float16).max
    return base64.b64encode(rows[:KEPT].clip(-limit, limit).astype("<f2").tobytes()).decode()


def _decode(text: str, crops: int) -> NDArray[np.float32]:
    rows = np.frombuffer(base64.b64decode(text, validate=True), "<f2")
    return rows.reshape(min(crops, KEPT), -1).astype(np.float32)
