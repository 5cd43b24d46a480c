"""Draws JRDB-format data sets: panoramas of people with matching annotations.

Used by `stage2 synth`, `stage2 demo` and the tests; nothing else depends on it.
"""
