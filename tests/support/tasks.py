"""A task around the one part that a test is about."""

from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.task import Task


def task_of(rewards: Rewards) -> Task:
    return Task("", Data(path="toy"), Answer(), rewards, EnvironmentSection())
