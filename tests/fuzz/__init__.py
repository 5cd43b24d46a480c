"""Fuzzing of every loader that reads files from elsewhere."""
