"""Export of a finished run to one file for other programs: ONNX, TorchScript or safetensors.

Used by `stage2 export`.
"""
