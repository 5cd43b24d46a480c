"""The process around a command: its standard streams, its exit code, and what it says when it ends early.

Standard library only.
"""
