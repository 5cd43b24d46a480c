"""The commands that read images and annotations: extraction, its data, and stores compared with their data.

Used by `cli.py`. Each command parses its options, calls one function and prints the result.
"""
