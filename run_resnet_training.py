"""The guide's preset runner: the same as `stage2 run`."""

import sys

from cli import process

if __name__ == "__main__":
    process(["run", *sys.argv[1:]])
