"""Export of a finished run to one file for other programs: ONNX, PT2 (torch.export), safetensors or TorchScript.

Used by `stage2 export`.
"""
