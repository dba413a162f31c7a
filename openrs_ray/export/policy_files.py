"""Files that a policy has besides the start model's own: `README.md` and `prompt.json`."""

from openrs_ray.config.schema import RunConfig
from openrs_ray.export.base import Base
from openrs_ray.export.prompting import FILE, Prompting
from openrs_ray.export.usage import prompting_section, running_section

README = "README.md"


def policy_files(config: RunConfig, prompting: Prompting) -> dict[str, bytes]:
    """Content by name, the same for every policy of an attempt."""
    return {README: policy_readme(config, prompting).encode(), FILE: prompting.as_json().encode()}


def policy_readme(config: RunConfig, prompting: Prompting) -> str:
    name = config.run.name
    how = "low-rank adapters, merged into the weights" if config.learner.lora.rank else "full fine-tuning"
    head = [
        f"# Policy of the run `{name}`",
        "",
        f"Trained by GRPO ({how}) from {Base.of(config.model.path).name}. The step is in the name of the folder above "
        "(`step-000050/policy`). A folder to share, with a model card, is made by",
        "",
        f"    python -m launch.export {name} --step best",
        "",
    ]
    return "\n".join([*head, prompting_section(prompting), running_section(prompting, name, "."), ""])
