"""The sources of an export: a run's folder, one of its checkpoints, and what is known of the start model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from openrs_ray.config.load import load_config
from openrs_ray.config.names import find_run
from openrs_ray.config.schema import RunConfig
from openrs_ray.environments.registry import check_environment, code_of
from openrs_ray.errors import UserError
from openrs_ray.export.base import Base
from openrs_ray.export.choice import Asked, Choice, chosen, kept_policies
from openrs_ray.export.prompting import Prompting
from openrs_ray.models.pretrained import read_config, read_tokenizer
from openrs_ray.models.stop_tokens import stop_tokens
from openrs_ray.run.checkpoint_files import ADAPTER, Checkpoint
from openrs_ray.run.metrics import read_metrics


@dataclass(frozen=True)
class Source:
    """Example: Source.find("open-rs3", "best")"""

    folder: Path
    """Of the run."""
    config: RunConfig
    checkpoint: Checkpoint
    choice: Choice

    @classmethod
    def find(cls, run: str | Path, asked: Asked) -> "Source":
        """UserError without such a run or policy, and for a damaged one."""
        folder = find_run(run).absolute()
        config = load_config(folder, [])
        kept = kept_policies(folder)
        choice = chosen(folder, kept, asked)
        checkpoint = kept[choice.step]
        if damage := checkpoint.policy_damage():
            raise UserError(f"the policy of step {choice.step} is damaged: {damage}; export another step")
        return cls(folder, config, checkpoint, choice)

    @property
    def name(self) -> str:
        """Example: "open-rs3-step-50" """
        return f"{self.config.run.name}-step-{self.choice.step}"

    @property
    def adapter(self) -> Path | None:
        folder = self.checkpoint.folder / ADAPTER
        return folder if folder.is_dir() else None

    @cached_property
    def base(self) -> Base:
        return Base.of(self.config.model.path)

    @cached_property
    def prompting(self) -> Prompting:
        return prompting_of(self.folder, self.checkpoint.policy, self.config, self.choice.step)


def prompting_of(run: Path, policy: Path, config: RunConfig, step: int) -> Prompting:
    """As the policy's folder says it or, of an older run, as its settings do; with the sampling of its step."""
    line = next((line for line in read_metrics(run) if line["step"] == step), {})
    return _prompting(policy, config).at_step(line)


def _prompting(policy: Path, config: RunConfig) -> Prompting:
    known = Prompting.read(policy)
    if known is not None:
        return known
    tokenizer, vocabulary = read_tokenizer(str(policy)), read_config(str(policy)).get_text_config().vocab_size
    ends = [token.id for token in stop_tokens(str(policy), vocabulary, tokenizer)]
    tools = {task.name: check_environment(task, code_of(config, task)) for task in config.tasks}
    return Prompting.of_run(config, tokenizer, ends, tools)
