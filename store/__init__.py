"""The HDF5 feature store: columns, shards, and the durable writing and checked reading of whole stores.

Uses numpy, h5py and faiss but no torch; `extract`, `classify` and `cli.py` may import it.
"""
