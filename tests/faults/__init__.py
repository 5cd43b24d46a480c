"""Fault injection into the store: kills, I/O errors, full disks, concurrent processes and damaged files."""
