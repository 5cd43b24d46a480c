"""Reads image files safely and cuts person crops out of panoramas.

Used by extraction, end-to-end training and the overlays of predictions.
"""
