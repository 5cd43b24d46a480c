"""Reads JRDB-format annotations into flat tables, and computes the spatial features of pairs.

Used by extraction, end-to-end training and prediction; no image is decoded here.
"""
