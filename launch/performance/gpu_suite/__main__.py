"""`python -m launch.performance.gpu_suite`: all that only a GPU can show, in under 30 minutes on one H100.

Independent parts; one that fails stops none of the others. Results lie in a folder, a file per part: given again, the command
goes on with what has not run yet and then with what did not pass (`--parts` runs the named ones in any case), so that it can be
spread over calls of, say, `--minutes 10`. Ends with a table for docs/performance.md. Without a GPU it is a dry run on small
inputs, and says so.
"""

import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from launch.cli.command import command
from launch.cli.options import Parser
from launch.performance.gpu_suite.parts import PARTS
from launch.performance.gpu_suite.rows import Size
from launch.performance.gpu_suite.runner import FAILED, Part, Result, Suite
from launch.performance.gpu_suite.table import markdown
from launch.performance.report import STDOUT
from openrs_ray.common.console import Document, json_output
from openrs_ray.config.schema import Run

_ROOT = Path(__file__).resolve().parents[3]


def suite(folder: Path, size: Size) -> Suite:
    """On one GPU, the first of those that are visible."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    variables = {"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false"}
    return Suite(
        PARTS,
        lambda part, file: [sys.executable, "-m", "launch.performance.gpu_suite.one", part.name, size, str(file)],
        folder.absolute(),
        {"size": size},
        variables | ({"CUDA_VISIBLE_DEVICES": gpu} if size == "full" else {}),
        together=size == "full",
    )


def detected() -> Size:
    import torch

    return "full" if torch.cuda.is_available() else "tiny"


@command
def main(arguments: list[str]) -> int:
    parser = Parser("performance.gpu_suite", __doc__)
    parser.add_argument("--parts", nargs="+", default=[], metavar="PART", help=", ".join(part.name for part in PARTS))
    results = Run(name="gpu-suite", steps=1).path
    parser.add_argument("--folder", type=Path, default=results, help="of the results (default: %(default)s)")
    about = (
        "write the results to stdout as one JSON document, and all else to stderr; with a folder: the same as --folder"
    )
    parser.add_argument("--json", type=Path, nargs="?", const=STDOUT, metavar="FOLDER", help=about)
    parser.add_argument("--minutes", type=float, default=30.0, help="for this call (default: 30)")
    parser.add_argument("--size", choices=("full", "tiny"), help="default: full on a GPU, else tiny")
    options = parser.parse_args(arguments)
    folder = options.folder if options.json in (None, STDOUT) else options.json
    made = suite(folder.expanduser(), options.size or detected())
    with json_output(options.json == STDOUT) as document:
        return _run(made, options.parts, options.minutes, document)


def _run(made: Suite, parts: list[str], minutes: float, document: Document) -> int:
    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    due = made.due(parts)
    say(f"{made.setting['size']} size, {len(due)} of {len(PARTS)} parts to run, results in {made.folder}")
    ended = [_said(part, result, say) for part, result in made.run(due, minutes)]
    results = {part.name: made.known(part) for part in PARTS}
    document({"folder": made.folder, "size": made.setting["size"], "parts": results})
    table = markdown(PARTS, results)
    (made.folder / "table.md").write_text(table + "\n", encoding="utf-8")
    say(f"\n{table}")
    return 1 if FAILED in ended else 0


def _said(part: Part, result: Result | None, say: Any) -> str:
    if result is None:
        say(f"{part.name}: left for another call, it takes about {part.expected_s:.0f} s")
        return ""
    say(f"{part.name}: {result['state']} after {result['seconds']:.0f} s {result.get('reason', '')}".rstrip())
    return str(result["state"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
