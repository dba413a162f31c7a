"""The environment of mathematics: one prompt, one completion."""

from openrs_ray.environments.environment import Engines
from openrs_ray.records import Problem, Rollout


class SingleTurn:
    async def rollout(self, problem: Problem, engines: Engines) -> Rollout:
        return Rollout.of([await engines.sample(problem.prompt_ids)])
