"""The settings of runs and extractions, presets, classes, splits and errors; every config checks itself when created.

Standard library only (and click in `options.py`), so that every folder can import it and `stage2 --help` is fast.
"""
