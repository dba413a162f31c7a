"""Episodes of a verifiers environment, for processes that can be killed: nothing here is imported by the driver.

An environment of verifiers 0.4 is a coroutine, `Env.run`, that asks its agent for turn after turn. A coroutine cannot be
carried from process to process, so an episode is played again from the conversation so far: the agent says what the policy has
said, and the first turn that it has not said yet is the one that is asked for.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import verifiers.v1 as vf
from pydantic import ValidationError
from verifiers.v1 import graph
from verifiers.v1.configs.agent import agent_config_fields
from verifiers.v1.dialects.chat import parse_message
from verifiers.v1.session import RolloutLimits, call_hook, hook_boundary
from verifiers.v1.state import state_cls
from verifiers.v1.utils.decorators import discover_decorated, invoke
from verifiers.v1.utils.loaders import default_harness_id, import_taskset

from openrs_ray.rewards.libraries.call import Unfit

Message = dict[str, str]
_THINK_END = "</think>"
_OLD = "it was written for verifiers before 0.4 (load_environment, Rubric), whose interfaces are gone: port it, or use another"


@dataclass(frozen=True)
class Scored:
    """Rewards of a finished episode."""

    reward: float
    """Weighted sum."""
    rewards: Mapping[str, float]
    """Unweighted, by the names of the functions and judges."""


class _Asks(BaseException):
    """The environment waits for the policy's next turn. No Exception: an environment's own `except` must not take it."""


class _Over(BaseException):
    """The conversation has ended."""


def rows(name: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The environment's tasks, each with the messages that open its conversation. Unfit.

    Args:
        parameters: fields of its taskset, besides `select` (which of its tasks) and `env` (fields of the environment itself).
    """
    env = environment(name, parameters)
    taskset = env.taskset.select(_checked(vf.SelectConfig, parameters.get("select") or {}, "select"))
    if not taskset.bounded:
        raise Unfit("it has tasks without end: say how many with data.parameters.select.limit")
    return [_row(env, task) | {"environment": (name, dict(parameters))} for task in taskset]


def next_messages(
    env: vf.Env, row: Mapping[str, Any], said: Sequence[Message], finish_reason: str
) -> list[Message] | None:
    """Reply of the environment after the conversation `said` (all but the opening), None where it has ended."""
    turns = [message["content"] for message in said if message["role"] == "assistant"]
    policy = _Policy(turns, finish_reason, scoring=False)
    with _same_luck(row):
        messages: list[Message] | None = _run(_asked(env, row, policy))
    given = [message for message in said if message["role"] != "assistant"]
    if policy.given[: len(given)] != given:
        raise RuntimeError(
            "the environment says something else when its conversation is played again: it must depend on nothing but its task "
            "and what the model has said"
        )
    return messages


def scored(env: vf.Env, row: Mapping[str, Any], turns: Sequence[str], finish_reason: str) -> Scored:
    """Rewards of an episode in which the policy said `turns`. Raises what the environment's own functions raise."""
    with _same_luck(row):
        trace = _run(_judged(env, row, _Policy(turns, finish_reason, scoring=True)))
    missing = [name for name, reward in trace.rewards.items() if reward is None]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} gave no reward")
    values = {name: float(reward.score) for name, reward in trace.rewards.items()}  # NumPy's numbers, too
    return Scored(float(trace.reward), values)


def one_turn(env: vf.Env) -> bool:
    """True where no conversation goes on after the policy's first turn."""
    return type(env).run is vf.SingleAgentEnv.run


def environment(name: str, parameters: Mapping[str, Any]) -> vf.Env:
    """One of each for the whole life of a process. Unfit."""
    key = (name, repr(parameters))
    if key not in _ENVIRONMENTS:
        taskset = {field: value for field, value in parameters.items() if field not in ("select", "env")}
        _ENVIRONMENTS[key] = _loaded(name, {**(parameters.get("env") or {}), "taskset": {**taskset, "id": name}})
    return _ENVIRONMENTS[key]


_ENVIRONMENTS: dict[tuple[str, str], vf.Env] = {}
_LOOP = asyncio.new_event_loop()


def _run(work: Any) -> Any:
    return _LOOP.run_until_complete(work)


def _loaded(name: str, settings: dict[str, Any]) -> vf.Env:
    _import(name)
    try:
        env = vf.load_environment(vf.resolve_env_config(settings))
    except ValidationError as error:
        raise Unfit(_first(error)) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise Unfit(str(error)) from error
    _check(env, name)
    if type(env).start is not vf.Env.start:
        _run(env.start())
    return env


def _import(name: str) -> None:
    """Unfit where there is no such package, or none for this verifiers."""
    try:
        module = import_taskset(name)
    except Exception as error:  # whatever a user's package raises
        if "module 'verifiers' has no attribute" in str(error):
            raise Unfit(_OLD) from error
        if isinstance(error, ModuleNotFoundError) and error.__cause__ is not None:
            raise Unfit(f"no package of that name is installed ({error.__cause__})") from error
        raise Unfit(f"it cannot be imported: {type(error).__name__}: {error}") from error
    if hasattr(module, "load_environment") and not hasattr(module, "__all__"):
        raise Unfit(_OLD)


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, found['loc'])).removeprefix('taskset.')}: {found['msg']}"


def _checked(kind: Any, settings: Any, where: str) -> Any:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise Unfit(f"{where}.{_first(error)}") from error


def _check(env: vf.Env, name: str) -> None:
    """Unfit for what only verifiers' own programs, servers and sandboxes can do."""
    task, config = type(env.taskset).task_type(), env.taskset.config
    if len(agents := agent_config_fields(env.config)) != 1:
        raise Unfit(
            f"it has the agents {', '.join(agents)}, and only environments with one agent can be trained on here"
        )
    if default_harness_id(name) == name:
        raise Unfit(
            "it brings a program of its own (a harness) that calls the model, and only conversations can be trained on"
        )
    if task.toolsets(config.task) or env.taskset.toolsets(config):
        raise Unfit("it brings servers of tools, which are not run here")
    if task.NEEDS_CONTAINER:
        raise Unfit("its tasks need a container")
    probe = task.__new__(task)
    if discover_decorated(probe, "intercept"):
        raise Unfit("it rewrites what the model says (@vf.intercept), and what is trained on must be what was sampled")
    hooks = [*discover_decorated(probe, "reward"), *discover_decorated(probe, "metric"), *_overridden(task)]
    if needing := [hook.__name__ for hook in hooks if _needs_runtime(hook)]:
        raise Unfit(
            f"{', '.join(needing)} of its tasks needs a runtime, and rewards here are judged by the conversation alone"
        )


def _overridden(task: type[vf.Task]) -> Iterator[Any]:
    for name in ("setup", "finalize"):
        if getattr(task, name) is not getattr(vf.Task, name):
            yield getattr(task, name)


def _needs_runtime(hook: Any) -> bool:
    given = inspect.signature(hook).parameters.get("runtime")
    return given is not None and given.default is inspect.Parameter.empty


def _row(env: vf.Env, task: vf.Task) -> dict[str, Any]:
    if task.data.image is not None:
        raise Unfit(f"its task {task.data.idx} needs a container image")
    # Through JSON's text: a class of text that the environment has made would need its code to be read.
    row = json.loads(json.dumps({"task": task.data.model_dump(mode="json"), "key": task.key}))
    opening = next_messages(env, row, [], "stop")
    if not opening:
        raise Unfit(f"its task {task.data.idx} ends before the model has said anything")
    answer = row["task"].get("answer")  # as in JSON: an enumeration of the environment's own stays here
    return {
        **row,
        "problem": opening,
        "answer": answer if isinstance(answer, str | int) else None,
        "one_turn": one_turn(env),
    }


@contextmanager
def _same_luck(row: Mapping[str, Any]) -> Iterator[None]:
    """The same random numbers whenever an episode is played again."""
    random.seed(row["key"])
    np.random.seed(int(row["key"][:8], 16) if _is_hex(row["key"][:8]) else sum(row["key"].encode()))
    yield


def _is_hex(text: str) -> bool:
    return bool(text) and not set(text) - set("0123456789abcdef")


def _task(env: vf.Env, row: Mapping[str, Any]) -> vf.Task:
    kind = type(env.taskset).task_type()
    return kind(kind.data_type().model_validate(row["task"]), env.taskset.config.task)


async def _asked(env: vf.Env, row: Mapping[str, Any], policy: _Policy) -> list[Message] | None:
    try:
        await _play(env, _task(env, row), policy)
    except _Asks:
        return policy.new_messages
    except _Over:
        pass
    return None


async def _judged(env: vf.Env, row: Mapping[str, Any], policy: _Policy) -> vf.Trace:
    task = _task(env, row)
    await _play(env, task, policy)
    if policy.trace is None:
        raise RuntimeError("the environment's run() asked for no turn")
    episode = vf.Episode(env=vf.EnvInfo(id=env.config.env_id), task=policy.trace.task, traces=[policy.trace])
    await env.finalize(task, episode)
    return policy.trace


async def _play(env: vf.Env, task: vf.Task, policy: _Policy) -> None:
    (name,) = agent_config_fields(env.config)
    agents = _Agents(_Agent(name, agent_config_fields(env.config)[name], policy))
    await env.setup(agents)
    await env.run(task, agents)


@dataclass
class _Policy:
    """Says again what the policy has said so far."""

    turns: Sequence[str]
    finish_reason: str
    """Of its last turn."""
    scoring: bool
    trace: vf.Trace | None = None
    given: list[Message] = field(default_factory=list)
    """Messages of the environment after the opening."""
    new_messages: list[Message] = field(default_factory=list)
    place: int = 0

    def reply(self, messages: Sequence[Message]) -> tuple[str, str] | None:
        """Text and finish reason of the next turn, which follows these messages. None where there is none any more."""
        if self.place:
            self.given += messages
        if self.place == len(self.turns):
            self.new_messages = list(messages)
            if self.scoring:
                return None
            raise _Asks
        self.place += 1
        return self.turns[self.place - 1], self.finish_reason if self.place == len(self.turns) else "stop"


class _Agents:
    def __init__(self, agent: _Agent) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> _Agent:
        if name != self.__dict__["_agent"].name:
            raise AttributeError(name)
        return self._agent


class _Agent:
    """Stands where verifiers' own agent would call a model."""

    def __init__(self, name: str, config: vf.AgentConfig, policy: _Policy) -> None:
        self.name, self.config, self.trainable, self._policy = name, config, True, policy

    async def run(self, task: vf.Task, **_placement: Any) -> vf.Trace:
        async with self.interaction(task) as interaction:
            await interaction.turn()
            if interaction.trace.stop_condition is None:
                interaction.trace.stop("agent_completed")
        return interaction.trace

    @asynccontextmanager
    async def interaction(self, task: vf.Task, **_placement: Any) -> AsyncIterator[_Interaction]:
        if self._policy.trace is not None:
            raise RuntimeError("the environment opens a second conversation, and only one can be trained on")
        trace = self._policy.trace = vf.Trace(
            task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
            state=state_cls(type(task))(),
            agent=vf.AgentInfo(config=self.config, name=self.name),
        )
        await invoke(task.setup, {"trace": trace, "runtime": None})
        yield _Interaction(task, trace, self.config, self._policy)
        if not self._policy.scoring:
            raise _Over
        if trace.stop_condition is None:
            trace.stop("user_closed")
        await invoke(task.finalize, {"trace": trace, "runtime": None})
        await task.score(trace)
        trace.is_completed = trace.ok = True


class _Interaction:
    """The conversation with the policy: one call of `turn` is one of its turns."""

    def __init__(self, task: vf.Task, trace: vf.Trace, config: vf.AgentConfig, policy: _Policy) -> None:
        self.trace, self._policy, self._over = trace, policy, False
        self._prompted = task.data.prompt is not None
        self._messages = _opening(task.data)
        self._limits = RolloutLimits(max_turns=config.max_turns)
        self._stops = [(hook_boundary(stop, allow_trace=True), stop) for stop in task.hooks("stop")]

    async def turn(self, message: str | Sequence[Any] | None = None) -> vf.Segment:
        if self._over:
            raise RuntimeError("the exchange is over (the run ended); read interaction.trace")
        first = not self.trace.num_turns
        if (message is None) != (first and self._prompted):
            raise ValueError("a task with a prompt is opened by a bare turn(), and every other turn has a message")
        given = _messages(message)
        self._messages += given
        unsaid = [_plain(message) for message in (self._messages if first else given)]
        reply = None if await self._refused() else self._policy.reply(unsaid)
        if reply is None:
            if self.trace.stop_condition is None:
                self.trace.stop("max_turns")
            self._over = True
            return vf.Segment(messages=[], terminated=True)
        said = _assistant(reply[0])
        response = vf.Response(
            id=f"turn-{self.trace.num_turns}", created=0, model="policy", message=said, finish_reason=reply[1]
        )
        node = graph.prepare_turn(self.trace, list(self._messages)).commit(response)
        self.trace.calls.append(vf.ModelCall(node=node, finish_reason=reply[1]))
        self._messages.append(said)
        await self._stop_at(vf.Response, response)
        return vf.Segment(messages=[said])

    async def close(self) -> vf.Trace:
        return self.trace

    async def _refused(self) -> bool:
        if limit := self._limits.reached(self.trace):
            self.trace.stop(limit)
        await self._stop_at(vf.Trace, self.trace)
        await self._stop_at(vf.Request, vf.Request(messages=list(self._messages)))
        return self.trace.stop_condition is not None

    async def _stop_at(self, boundary: type, value: Any) -> None:
        available: dict[type, object] = {vf.Trace: self.trace, boundary: value}
        for stop in (stop for kind, stop in self._stops if kind is boundary):
            if self.trace.stop_condition is None and await call_hook(stop, available):
                self.trace.stop(stop.__name__)


def _opening(data: vf.TaskData) -> list[Any]:
    system = [] if data.system_prompt is None else [vf.SystemMessage(content=data.system_prompt)]
    return [*system, *_messages(data.prompt)]


def _messages(message: str | Sequence[Any] | None) -> list[Any]:
    if isinstance(message, str):
        return [vf.UserMessage(content=message)]
    return [parse_message(one) if isinstance(one, dict) else one for one in message or ()]


def _plain(message: Any) -> Message:
    if not isinstance(message.content, str) or getattr(message, "tool_calls", None):
        raise Unfit("the environment says something that is no text, and only texts can be trained on")
    return {"role": message.role, "content": message.content}


def _assistant(text: str) -> Any:
    """Message as a server with a reasoning parser gives it: the part before </think> stands apart."""
    thought, end, rest = text.partition(_THINK_END)
    if not end:
        return vf.AssistantMessage(content=text)
    return vf.AssistantMessage(content=rest.lstrip("\n"), reasoning_content=thought.removeprefix("<think>").strip("\n"))
