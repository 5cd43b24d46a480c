"""The file formats of a store: recipe, STORE.json, shards and packed files.

Only `store` uses the byte layout; other packages use `Recipe`, `Manifest`, `Selection` and `Shard`.
"""
