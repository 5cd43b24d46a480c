"""JRDB-format annotation files as flat tables, and the spatial features of pairs.

Used by planning and by end-to-end training; no image pixels are read here.
"""
