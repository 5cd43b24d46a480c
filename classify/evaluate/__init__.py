"""Metrics of a model on a split, the baselines that it must beat, and the history of a run.

Used by training, inference and reports.
"""
