"""Finished runs at work: evaluated on a split, or predicting on new frames.

Used by `stage2 evaluate`, `stage2 predict` and export.
"""
