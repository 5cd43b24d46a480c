"""The model (backbone and fusion head), its loss and its checkpoints.

Used by training, evaluation, inference and export.
"""
