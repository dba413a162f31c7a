"""`python -m launch.export RUN [--step best|N] [--folder DIR]`: a trained policy as a model to use and share elsewhere.

The folder has weights, tokenizer, chat template, the run's sampling as generation config, a model card, and the licence of the
start model as far as it is known; of a run with adapters the merged model, and the adapter in `adapter/`.
"""

import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from launch.cli.command import command
from launch.cli.failures import belongs_to
from launch.cli.options import Parser
from openrs_ray.common.console import say
from openrs_ray.errors import UserError
from openrs_ray.export.choice import Asked, default_folder
from openrs_ray.run.ledger import note_beside


@command
def main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    console = Console(highlight=False)
    from openrs_ray.export import gguf, repository
    from openrs_ray.export.folder import HERE, Convert, check_target, write_export
    from openrs_ray.export.policy_files import README
    from openrs_ray.export.source import Source

    source = Source.find(options.run, asked_step(options.step))
    belongs_to(source.folder)
    say(console, source.choice.why)
    given = Path(options.folder).expanduser().absolute() if options.folder else None
    folder = given or default_folder(source.folder, source.choice.step)
    check_target(folder)
    if options.push_to:
        repository.check_repository(options.push_to, options.public)
    elif options.public:
        raise UserError("--public is about a repository: give --push-to OWNER/NAME as well")
    convert: Convert | None = None
    if options.gguf:
        file = f"{source.name}-{options.gguf}.gguf"
        convert = partial(gguf.write_gguf, gguf.converter(options.converter), file, options.gguf)
    write_export(source, folder, options.push_to or HERE, convert)
    note_beside(folder / README, "export", step=source.choice.step, asked=options.step)
    say(console, f"{folder}: the model with its card in README.md")
    if options.push_to:
        url = repository.push(folder, options.push_to, options.public)
        say(console, f"pushed to {url} ({'public' if options.public else 'private'})")


def _parser() -> Parser:
    from openrs_ray.export.gguf import TYPES

    parser = Parser("export", __doc__)
    parser.add_argument("run", metavar="RUN", help="a run, by its folder or name")
    step = "best: by accuracy on the run's held-out problems, the earlier of equal ones; N: a step (default: best)"
    parser.add_argument("--step", default="best", metavar="best|N", help=step)
    parser.add_argument("--folder", help="must be empty or new (default: export/step-N in the run's folder)")
    parser.add_argument("--gguf", choices=TYPES, help="also a GGUF file of this type, by llama.cpp's converter")
    converter = "convert_hf_to_gguf.py of llama.cpp, unless it is on the PATH"
    parser.add_argument("--converter", metavar="FILE", help=converter)
    parser.add_argument("--push-to", metavar="OWNER/NAME", help="push to this repository of the Hub, a private one")
    parser.add_argument("--public", action="store_true", help="with --push-to: a public one")
    return parser


def asked_step(text: str) -> Asked:
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise UserError(f"--step {text}: give best, or the number of a step")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
