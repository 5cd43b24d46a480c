"""The guide's preset runner: the same as `stage2 run`."""

import sys

from cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
