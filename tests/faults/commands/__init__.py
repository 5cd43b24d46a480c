"""Fault injection into whole commands: training, prediction, reports, exports, comparisons and drawn data."""
