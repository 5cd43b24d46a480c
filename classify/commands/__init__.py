"""The commands that train, and that use finished runs.

Used by `cli.py`. Each command parses its options, calls one function and prints the result.
"""
