"""The door to `scripts.bench.gpu`, which needs no installation: only the repository."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.bench.gpu.command import main

if __name__ == "__main__":
    sys.exit(main())
