"""Checks every byte, count and row of a store."""
