"""Networks that turn crops into features, and their weights.

Extraction, fine-tuning and export build their backbone here.
"""
