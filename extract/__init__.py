"""Images and annotations in, a feature store out: the batch extraction job and its parts.

May import `configs` and `store`; `classify` uses its backbones, crops and annotations.
"""
