"""Benchmarks: each prints a table and writes JSON. See docs/performance.md for the commands and results."""
