"""``python -m cissod_bench``: the same as the command ``cissod-bench``; so children are started, which end with us."""

import sys

from cissod_bench.signals import FOLLOW_PARENT, follow_parent

if __name__ == "__main__":
    if sys.argv[1:2] == [FOLLOW_PARENT]:  # before anything that takes time: the parent may be gone soon
        follow_parent()
        sys.argv[:2] = ["cissod-bench"]  # as the run's record shall name it
    from cissod_bench.cli import entry

    entry()
