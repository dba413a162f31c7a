"""`openrs COMMAND ...`: every command under one name; `openrs train RECIPE` is `python -m launch.train RECIPE`."""

import difflib
import sys
from importlib import import_module, metadata

from launch.cli.command import command
from openrs_ray.errors import UserError

COMMANDS = {
    "train": "Trains a policy by GRPO, as a recipe says.",
    "evaluate": "Evaluates runs or a model on benchmarks, beside the start model, with intervals.",
    "chat": "Talks to a trained policy in the terminal, prompted as in training.",
    "export": "Makes a trained policy a model to use and share elsewhere.",
    "reproduce": "Repeats the whole paper: start model, training, choice of a checkpoint, tables.",
    "curate": "Makes a training set from raw problems, as a data recipe says.",
    "probe": "Says whether this machine has what a run will need.",
    "coverage": "Proves that a run used each position of its data order exactly once.",
    "audit": "Checks what a run's record proves: chain of digests, verdicts, losses, figures.",
    "report": "Makes the page of one or more runs: curves, completions, times, settings.",
    "show": "Shows completions with prompt, gold and verdict.",
    "trace": "Says where a step's time went, stage by stage.",
    "verify": "Checks answers from a file with the reward pool.",
    "fields": "Writes the page of all fields, docs/fields.md.",
    "shapes": "Writes the shapes of models that a dry run without a network plans with.",
    "performance.rewards": "Measures the reward pool's checks per second.",
    "performance.rollout": "Measures a rollout worker against raw vLLM.",
    "performance.learner": "Measures one learner rank.",
    "performance.completions": "Measures the CPU time that a completion costs the driver.",
    "performance.learning": "Compares settings by the held-out accuracy they reach.",
    "performance.guard": "Asks the guard's rules about finished runs.",
    "performance.push": "Measures a weight push against the bare transfer.",
    "performance.step": "Measures whole steps against TRL's.",
    "performance.gpu_suite": "Runs everything that needs a GPU, in under 30 minutes.",
}


def main(arguments: list[str] | None = None) -> int:
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name not in COMMANDS:
        return _about([name])
    module = import_module(f"launch.{name}{'.__main__' * (name == 'performance.gpu_suite')}")
    return int(module.main(rest))


@command
def _about(words: list[str]) -> None:
    (name,) = words
    if name in ("--help", "-h"):
        width = max(map(len, COMMANDS)) + 2
        lines = [f"  {each:<{width}}{sentence}" for each, sentence in COMMANDS.items()]
        text = ["usage: openrs COMMAND ...", "", *lines, "", "`openrs COMMAND --help` explains a command."]
        sys.stdout.write("\n".join(text) + "\n")
    elif name == "--version":
        sys.stdout.write(metadata.version("openrs-ray") + "\n")
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        raise UserError(
            f"{name!r} is not a command; "
            + (f"the nearest one is {near[0]} (openrs --help lists all)" if near else "openrs --help lists them")
        )


if __name__ == "__main__":
    sys.exit(main())
