"""Several trainings side by side, each in its own process.

Used by `stage2 compare`.
"""
