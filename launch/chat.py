"""`python -m launch.chat RUN_OR_FOLDER [--step best|N]`: talks to a policy, with its run's system prompt and suffix.

In a terminal the conversation goes on from line to line; `/new` begins another one, Ctrl-C or Ctrl-D ends it. Piped, each line is
a conversation of its own: `python -m launch.chat RUN < problems.txt`.
"""

import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING

from launch.cli.command import command
from launch.cli.numbers import number, positive
from launch.cli.options import Parser
from launch.export import asked_step
from launch.show import printable
from openrs_ray.errors import UserError

if TYPE_CHECKING:
    from openrs_ray.export.conversation import Conversation

_NEW = "/new"


@command
def main(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    from openrs_ray.export.partner import find_partner

    partner = find_partner(options.model, asked_step(options.step) if options.step else None)
    # Through transformers, which talks after seconds: an engine takes several times as long to start, for many requests at once.
    conversation = partner.conversation(options.task, options.temperature, options.max_tokens)
    if conversation.prompt.environment:
        _note(f"The environment {conversation.prompt.environment} answered it in training; here nothing does.")
    try:
        if sys.stdin.isatty():
            _note(f"{partner.name}. {_NEW} begins another conversation, Ctrl-D ends.")
            _talk(conversation)
        else:
            _answer_each(conversation)
    except KeyboardInterrupt:
        _write("\n")


def _talk(conversation: "Conversation") -> None:
    for line in _typed():
        if line == _NEW:
            conversation.begin_anew()
            continue
        if conversation.turns and not conversation.fits(line):
            _note("The model has no room for more turns: this one begins another conversation.")
            conversation.begin_anew()
        try:
            conversation.ask(line, _write)
            _write("\n")
        except UserError as error:
            _note(f"{error}")


def _answer_each(conversation: "Conversation") -> None:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # tokenizers take no other text
    for line in sys.stdin:
        if line.strip():
            conversation.begin_anew()
            conversation.ask(line.rstrip("\n"), _write)
            _write("\n")


def _typed() -> Iterator[str]:
    """Lines from the terminal, until Ctrl-D."""
    import readline  # noqa: F401  gives input() a history and a cursor

    while True:
        try:
            line = input("> ")
        except EOFError:
            _write("\n")
            return
        if line.strip():
            yield line


def _write(text: str) -> None:
    """To a terminal without characters that would steer it, whatever the model says; to a pipe as it is."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _note(text: str) -> None:
    """Apart from the answers, which may be piped on."""
    sys.stderr.write(f"{text}\n")


def _parser() -> Parser:
    parser = Parser("chat", __doc__)
    model = "a run (folder or name), a folder with a policy or an export, a Hub id, or a built-in model"
    parser.add_argument("model", metavar="RUN_OR_FOLDER", help=model)
    step = "of a run (default: its newest policy); best: as for launch.export"
    parser.add_argument("--step", metavar="best|N", help=step)
    parser.add_argument("--task", help="of a run with several: whose prompt (default: the first)")
    parser.add_argument("--temperature", type=number(0, 100), help="0: the likeliest token (default: as in training)")
    parser.add_argument("--max-tokens", type=positive, help="of an answer (default: as in training)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
