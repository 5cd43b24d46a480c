"""Training runs: the loop, the optimizer steps, and the folder and seeds of a run.

`classify/pipeline.py` calls it; the loop itself is `loop.py`.
"""
