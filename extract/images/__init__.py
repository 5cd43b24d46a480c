"""Image files as checked pixels, and frames as person crops.

Used by extraction, end-to-end training and the drawing of predictions.
"""
