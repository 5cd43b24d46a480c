"""The output of a run for its users: log lines, results file, plots, overlays and the HTML report.

Used by training, prediction and `stage2 report`.
"""
