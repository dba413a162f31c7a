"""`python -m launch.performance.gpu_suite.one PART SIZE RESULT.json`: one part by itself, as the suite starts it.

The result is written anew after every row: a part that is killed leaves what it had found.
"""

import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from launch.cli.command import command
from launch.cli.options import Parser
from launch.performance.gpu_suite.parts import function_of
from launch.performance.gpu_suite.rows import Function, Row, Size, Skip
from launch.performance.gpu_suite.runner import FAILED, PASSED, RUNNING, SKIPPED
from launch.performance.report import machine
from openrs_ray.common.files import write_json
from openrs_ray.common.foreign import why_with_kind


def run(function: Function, size: Size, file: Path) -> str:
    """The part's state in the end."""
    began, rows = time.monotonic(), list[Row]()
    about = machine()

    def save(state: str, reason: str = "") -> str:
        content = {"state": state, "reason": reason, "size": size, "rows": [asdict(row) for row in rows]}
        write_json(file, content | {"seconds": time.monotonic() - began, "machine": about})
        return state

    save(RUNNING)
    try:
        for row in function(size):
            rows.append(row)
            save(RUNNING)
    except Skip as skip:
        return save(SKIPPED, str(skip))
    except Exception as error:
        traceback.print_exc()
        return save(FAILED, why_with_kind(error))
    failed = [row.what for row in rows if row.verdict == "failed"]
    return save(FAILED if failed else PASSED, "; ".join(failed))


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.gpu_suite.one", __doc__)
    parser.add_argument("part", metavar="PART")
    parser.add_argument("size", metavar="SIZE", choices=get_args(Size))
    parser.add_argument("file", metavar="RESULT.json", type=Path)
    options = parser.parse_args(arguments)
    return 1 if run(function_of(options.part), options.size, options.file) == FAILED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
