"""The commands that need only a store, `stage2 store ...`, and the texts that commands print about stores.

Used by `extract/commands` and `cli.py`.
"""
