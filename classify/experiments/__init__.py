"""Comparisons of several trainings, each in a process of its own.

Used by `stage2 compare`.
"""
