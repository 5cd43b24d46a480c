"""From annotated frames to shards: plan units (runs of frames of one scene), crop, forward in batches, assemble.

Used by the extraction job, by repair, by end-to-end training (tables without features) and by prediction.
"""
