"""Metrics of a model on a split, the baselines it must beat, and the history of a run.

Used by training and by commands on finished runs.
"""
