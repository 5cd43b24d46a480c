"""What a run is: settings, presets, classes, splits and errors, checked when they are made.

Standard library only (click in `options.py`), so every other folder and `stage2 --help` can import it.
"""
