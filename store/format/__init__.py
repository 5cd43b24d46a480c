"""How rows become bytes and back: recipe, manifest, shards and packed files.

Only the rest of `store` needs the byte layout; other folders use `Recipe`, `Manifest` and `Shard`.
"""
