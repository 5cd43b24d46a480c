"""The HDF5 feature store: its tables, its file formats, and code that writes, reads, checks and packs whole stores.

Uses numpy, h5py and faiss but not torch. `extract`, `classify` and `cli.py` may import it.
"""
