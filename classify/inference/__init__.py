"""Evaluation of finished runs on a split, and prediction on new frames.

Used by `stage2 evaluate`, `stage2 predict` and export.
"""
