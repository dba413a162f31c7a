"""Checks the judge models of a run before it starts: keys, models, and one question to each endpoint."""

import asyncio
import os

from pydantic import SecretStr

from openrs_ray.config.judge_model import JudgeModel
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.models.bundled import resolve_model
from openrs_ray.rewards.judge_model.client import Unjudged
from openrs_ray.rewards.judge_model.judges import probe
from openrs_ray.rewards.judge_model.settings import JudgeSettings


def check_judges(config: RunConfig) -> None:
    """UserError when a judge model could not be asked; one that the run serves is asked when its server is up."""
    keys = judge_keys(config)
    for name, judge in config.judges.items():
        if judge.served:
            served_path(judge)
        else:
            key = keys[name].get_secret_value() if name in keys else None
            weights = config.task(name).rewards.weights
            try:
                asyncio.run(probe(JudgeSettings.of(judge), weights, key))
            except Unjudged as error:
                raise unusable(judge, error) from error


def unusable(judge: JudgeModel, error: Unjudged) -> UserError:
    detail = error.detail.removeprefix("judge: ")
    return UserError(
        f"the judge model {judge.model} gave no judgement of an example: {detail}; mend rewards.judge (docs/judges.md)"
    )


def judge_keys(config: RunConfig) -> dict[str, SecretStr]:
    """API keys by task. UserError when an environment variable is missing."""
    named = {name: judge.api_key_env for name, judge in config.judges.items()}
    return {name: _key(variable) for name, variable in named.items() if variable is not None}


def _key(variable: str) -> SecretStr:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {variable} (rewards.judge.api_key_env) is not set: export it, or with ray job submit "
            f'give --runtime-env-json \'{{"env_vars": {{"{variable}": "..."}}}}\''
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the environment variable {variable} (rewards.judge.api_key_env) holds no key: set it anew")
    return SecretStr(key)


def served_path(judge: JudgeModel) -> str:
    """Folder or Hub id of a judge model that the run serves. UserError where there is none."""
    assert judge.model is not None
    try:
        return resolve_model(judge.model)
    except UserError as error:
        raise UserError(str(error).replace("model.path", "rewards.judge.model")) from error
