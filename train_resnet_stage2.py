"""The guide's training command: the same as `stage2 train`."""

import sys

from cli import process

if __name__ == "__main__":
    process(["train", *sys.argv[1:]])
