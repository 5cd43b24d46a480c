"""A finished run as one file for other programs: ONNX, TorchScript or safetensors.

Used by `stage2 export`.
"""
