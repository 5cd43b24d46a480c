"""Draws synthetic datasets in JRDB format: panoramas of people with matching annotations.

Used by `stage2 synth`, `stage2 demo` and the tests only.
"""
