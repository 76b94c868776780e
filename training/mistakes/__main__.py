"""``python -m training.mistakes FILE...``: says which mistakes cannot be used, and why."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from training.mistakes import parse, problem
from training.quick_tests import QuickTests
from training.seeds import load_seeds


def main(paths: list[str]) -> int:
    seeds = {seed.name: seed for seed in load_seeds()}
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        runner = QuickTests(Path(folder))
        for path in paths:
            good, seen = 0, set()
            for number, mistake in parse(Path(path).read_text(encoding="utf-8")):
                why = "it stands here twice" if mistake in seen else problem(mistake, seeds, runner)
                seen.add(mistake)
                good += why is None
                if why is not None:
                    bad += 1
                    print(f"{path}:{number}: {mistake.project}: {why}")
            print(f"{path}: {good} mistakes can be used")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
