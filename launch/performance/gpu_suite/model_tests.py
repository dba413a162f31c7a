"""Part model_tests: the tests of the model that need a GPU, by pytest as anybody would run them."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from launch.performance.gpu_suite.rows import Row, Size, Skip, noted, true

_ROOT = Path(__file__).resolve().parents[3]
_FILE = _ROOT / "tests" / "gpu" / "test_model.py"


def model_tests(size: Size) -> Iterator[Row]:
    """On a CPU they are only collected, and one of the same kind runs."""
    if find_spec("pytest") is None:
        raise Skip("pytest is not installed")
    if not _FILE.is_file():
        raise Skip("the tests are not here: run it from a clone of the repository")
    if size == "full":
        yield from _outcome(str(_FILE), "-m", "gpu")
    else:
        collected = _pytest("--collect-only", "-m", "gpu", str(_FILE))
        yield true("the GPU tests can be collected", collected.returncode == 0)
        yield from _outcome(
            str(_ROOT / "tests/unit/openrs_ray/algorithm/test_policy.py"), "-k", "bfloat16 or neighbours"
        )


def _outcome(*arguments: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        _pytest("--junitxml", str(report), *arguments)
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None, "pytest's report has no test suite"
    ran, bad, skipped = (
        sum(int(suite.get(name, 0)) for name in names) for names in (["tests"], ["failures", "errors"], ["skipped"])
    )
    yield true("all pass", bad == 0 and skipped == 0 and ran > 0, f"{ran - bad - skipped} of {ran}")
    longest = max(suite.iter("testcase"), key=lambda case: float(case.get("time", 0)))
    yield noted(f"longest: {longest.get('name')}", float(longest.get("time", 0)), "s")


def _pytest(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Its output goes to the part's log."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments], cwd=_ROOT, check=False
    )
