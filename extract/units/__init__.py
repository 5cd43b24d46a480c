"""From a planned unit (a run of frames of one scene) to its shard: prepare, batch, forward, assemble.

Used by the extraction job, by repair and by prediction.
"""
