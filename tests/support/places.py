"""Paths of the project and of the tests' helper modules."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
PYTHONPATH = os.pathsep.join([str(ROOT), str(SUPPORT)])
"""For processes that import the project and the helper modules."""
