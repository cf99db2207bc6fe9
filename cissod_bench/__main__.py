"""``python -m cissod_bench``: the same as the command ``cissod-bench``."""

from cissod_bench.cli import entry

if __name__ == "__main__":
    entry()
