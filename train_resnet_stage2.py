"""The guide's training command: the same as `stage2 train`."""

import sys

from cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
