"""The resume rule: which settings of a run may change when it goes on.

A path may differ where its content is the same, by the fingerprints in problems.json.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from openrs_ray.algorithm.schedule import rewound
from openrs_ray.common.files import read_json, write_json
from openrs_ray.common.same_request import check_same
from openrs_ray.config.load import checked, flat
from openrs_ray.config.resumable import fixed_fields
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.fingerprint import model_digest
from openrs_ray.run.attempts import next_attempt
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.ledger import Ledger
from openrs_ray.run.problems import RunProblems
from openrs_ray.run.state import CONFIG, begun, check_state
from openrs_ray.run.user_files import check_user_code, keep_user_code, user_code_digests

_SAME_PROBLEMS = re.compile(r"(data(\[\d+\])?\.)?(evaluation\.)?path|model\.chat_template")
"""Paths that matter by the problems and prompts made of their content."""
_SAME_MODEL = "model.path"
_RANKS, _BY_RANKS = "placement.num_learner_gpus", "local_micro_batch"
_INSTEAD = "choose another run.name"


def check_run(config: RunConfig, resume: bool) -> None:
    """UserError when a run that has begun must not go on."""
    if not begun(config.run.path):
        return
    if not resume:
        raise UserError(
            f"run {config.run.name} exists already in {config.run.path}: continue it with --resume, or choose another "
            "name with --run.name"
        )
    saved, known = read_json(config.run.path / CONFIG), RunProblems.read(config.run.path)
    if saved is not None:
        check_resumable(saved, config, known)
    if known is not None and known.user_code:
        check_user_code(known, user_code_digests(config), config, _INSTEAD)
    check_state(config.run.path)


def kept_fields(config: RunConfig) -> frozenset[str]:
    """Fields of a run that has begun which `check_resumable` lets no resume change; none before."""
    if not begun(config.run.path):
        return frozenset()
    of_evaluations = {"rollout.quantization", "evaluation.max_completion_tokens"} if config.has_evaluations else set()
    of_loss = {_RANKS} if config.loss.normalization == _BY_RANKS else set()
    return fixed_fields(type(config), config.model_dump(mode="json")) | of_evaluations | of_loss


def begin_run(config: RunConfig, problems: RunProblems) -> None:
    """Write the run's problems and config, and note them in its ledger.

    UserError when it began with other problems or start weights.
    """
    # A start that was killed between the two files below has left the first one, and nothing that must stay the same.
    known = RunProblems.read(config.run.path) if begun(config.run.path) else None
    problems = replace(problems, model=model_digest(config.model.path))
    if known is not None:
        check_user_code(known, problems.user_code, config, _INSTEAD)
        _check_same_content(known, problems, config)
        # The record's positions that were passed over are proven by the lengths, also once no stage goes by them.
        problems = replace(problems, prompt_tokens=problems.prompt_tokens or known.prompt_tokens)
    keep_user_code(config)
    problems.write(config.run.path)
    write_json(config.run.path / CONFIG, config.model_dump(mode="json"))
    Ledger(config.run.path).note("start", only_news=True, attempt=next_attempt(config.run.path))


def check_resumable(saved: dict[str, Any], now: RunConfig, known: RunProblems | None = None) -> None:
    """UserError if `now` changes a fixed field; by `known` fingerprints, paths may change."""
    then = _saved_config(saved, now)
    before, after = flat(then), flat(now)
    if now.loss.normalization == _BY_RANKS and before[_RANKS] != after[_RANKS]:
        raise UserError(
            f"{_RANKS} was {before[_RANKS]} so far and cannot become {after[_RANKS]} on resume with loss.normalization "
            f"{_BY_RANKS}, a loss that depends on it: set it back, or choose another run.name."
        )
    if now.evaluation.hold_out and "hold_out_seed" not in saved.get("evaluation", {}):
        raise UserError(
            f"the held-out problems of run {now.run.name} were drawn by run.seed, with spellings of them left in the training; "
            "this version draws others: finish the run with the version that began it, or choose another run.name."
        )
    both = (fixed_fields(type(now), each.model_dump(mode="json")) for each in (then, now))
    fixed = frozenset[str]().union(*both) - _told_by_content(before, after, known)
    fields = sorted(fixed, key=lambda name: (name != "fidelity", name))  # it sets others
    was, is_now = ({dotted: values[dotted] for dotted in fields if dotted in values} for values in (before, after))
    sets = ({"the number of data sets": len(config.tasks)} for config in (then, now))
    (was, is_now) = (number | values for number, values in zip(sets, (was, is_now), strict=True))
    check_same(was, is_now, f"run {now.run.name}", _INSTEAD)
    _check_evaluations_compare(then, now)


def _check_evaluations_compare(then: RunConfig, now: RunConfig) -> None:
    if not then.has_evaluations:
        return
    was, is_now = then.rollout.quantization, now.rollout.quantization
    if was != is_now:
        raise UserError(
            f"the evaluations of run {now.run.name} were sampled by engines with rollout.quantization {was} so far and would now "
            f"be with {is_now}, which do not compare: give --rollout.quantization {was}, or {_INSTEAD}."
        )
    before, after = then.max_evaluated_tokens, now.max_evaluated_tokens
    if before != after:
        raise UserError(
            f"the evaluations of run {now.run.name} had completions of up to {before} tokens so far and would now have up to "
            f"{after}, which do not compare: give --evaluation.max_completion_tokens {before}, or {_INSTEAD}."
        )


def _told_by_content(before: dict[str, Any], after: dict[str, Any], known: RunProblems | None) -> set[str]:
    """Paths that `begin_run` compares by content."""
    if known is None:
        return set()
    copied = bool(known.model) and Path(after[_SAME_MODEL]).expanduser().is_dir()
    fields = {*filter(_SAME_PROBLEMS.fullmatch, after), *([_SAME_MODEL] if copied else [])}
    return {field for field in fields if before.get(field) is not None and after[field] is not None}


def _check_same_content(known: RunProblems, now: RunProblems, config: RunConfig) -> None:
    contents = {
        "problems": f"the problems in {' and '.join(task.data.path for task in config.tasks)} or the prompts made of them",
        "model": f"the weights or the config.json of the model in {config.model.path}",
    }
    before, after = ({"problems": each.fingerprint, "model": each.model} for each in (known, now))
    check_same(
        before if known.model else before | {"model": now.model}, after, f"run {config.run.name}", _INSTEAD, contents
    )


def resume_notes(config: RunConfig) -> list[str]:
    step = max((known.step for known in CheckpointStore(config.run.path / "checkpoints").checkpoints()), default=0)
    content = read_json(config.run.path / CONFIG)
    if not step or content is None:
        return []
    try:
        saved = type(config).model_validate(content)
    except ValidationError:
        return []
    note = rewound(step, saved, config)
    return [note] if note else []


def _saved_config(saved: dict[str, Any], now: RunConfig) -> RunConfig:
    """The saved config; newer fields have their defaults."""
    try:
        return checked(type(now), saved, [], "config.json")
    except UserError as error:
        problem = " ".join(str(error).replace("config.json: ", "").split()).rstrip(".")
        raise UserError(
            f"config.json of run {now.run.name} in {now.run.path} is damaged or of another version ({problem}): "
            "restore it, go on with that version, or choose another run.name."
        ) from error
