"""What people read about a run: log lines, results file, plots, overlays and the HTML report.

Used by training, prediction and `stage2 report`.
"""
