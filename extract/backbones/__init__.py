"""Networks that turn crops into features, their weights, and fast inference with them.

Extraction, end-to-end training and export build their backbone here.
"""
