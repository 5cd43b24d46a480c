"""The samples of each split as batches of pairs, from cached features, streamed features or crops.

Used by training, evaluation and inference.
"""
