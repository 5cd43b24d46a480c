"""Stored features (or crops) in, a trained fusion head and its results out.

May import `configs`, `store` and `extract`; only `cli.py` imports it.
"""
