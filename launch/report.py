"""`python -m launch.report RUN [RUN ...] [--output FILE | --serve]`: the run page, in one HTML file or as long as it is served.

The file needs no network and no server. `--serve` shows the page to browsers on this machine only, at an address with a secret in
it, and follows runs that are training.
"""

import sys
from pathlib import Path

from rich.console import Console

from launch.cli.command import command
from launch.cli.options import Parser
from launch.show import printable
from openrs_ray.common.console import say
from openrs_ray.common.formatting import size_text
from openrs_ray.config.names import CONFIG, find_run
from openrs_ray.errors import UserError
from openrs_ray.report.server import listen, new_secret, serve
from openrs_ray.report.static import write_page
from openrs_ray.run import metrics
from openrs_ray.run.ledger import note_beside


@command
def main(arguments: list[str]) -> None:
    parser = Parser("report", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run: its folder, or its name")
    output = "the file to write (default: report.html in the run's folder; of several runs, in the working folder)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)
    parser.add_argument("--serve", action="store_true", help="serve the page on this machine until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="with --serve: the port (default: a free one)")
    options = parser.parse_args(arguments)
    if options.serve and options.output:
        raise UserError("--serve writes no file: leave --output out, or leave --serve out")
    if options.port and not options.serve:
        raise UserError("--port is for --serve: give that too, or leave --port out")
    runs = list(dict.fromkeys(find_run(run) for run in options.runs))
    for run in runs:
        if not any((run / name).exists() for name in (CONFIG, metrics.FILE)):
            raise UserError(f"{run} is no run: it has neither {CONFIG} nor {metrics.FILE}")
    console = Console(highlight=False)
    if options.serve:
        _serve(runs, options.port, console)
        return
    path = options.output or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    try:
        size = write_page(path, runs, lambda fault: say(console, f"warning: {printable(fault)}"))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): name another file with --output") from error
    note_beside(path, "page")
    say(console, f"{printable(str(path))} ({size_text(size)}): open it in a browser.")


def _serve(runs: list[Path], port: int, console: Console) -> None:
    def tell(address: str) -> None:
        names = printable(", ".join(run.name for run in runs))
        say(console, f"{address} shows {names}, on this machine only, until Ctrl-C.")
        forward = address.split("/")[2]
        say(console, f"From elsewhere: ssh -L {forward.split(':')[1]}:{forward} MACHINE, then the same address.")

    serve(runs, listen(port), new_secret(), tell)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
