"""`openrs COMMAND ...`: every command under one name; `openrs train RECIPE` is `python -m launch.train RECIPE`."""

import difflib
import sys
from importlib import import_module, metadata

from launch.cli.command import command
from openrs_ray.errors import UserError

COMMANDS = {
    "train": "Trains a policy by GRPO, as a recipe says.",
    "evaluate": "Evaluates runs or a model on benchmarks, beside the start model, with intervals.",
    "reproduce": "Repeats the whole paper: start model, training, choice of a checkpoint, tables.",
    "curate": "Makes a training set from raw problems, as a data recipe says.",
    "probe": "Says whether this machine has what a run will need.",
    "coverage": "Proves that a run used each position of its data order exactly once.",
    "report": "Makes the page of one or more runs: curves, completions, times, settings.",
