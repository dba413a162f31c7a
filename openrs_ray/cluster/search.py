"""Finds the cheapest changes of a recipe with which it fits, by the forecast's seconds of a step."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from operator import itemgetter

from openrs_ray.cluster.cards import Card
from openrs_ray.cluster.changes import (
    Options,
    changed,
    combinations,
    engine_doses,
    larger_engines,
    learner_doses,
    valid,
    without,
)
from openrs_ray.cluster.engine_memory import ASLEEP, engine_parts
from openrs_ray.cluster.forecast import BEST, Run, forecast, forecast_under, learning_s, sampling_s
from openrs_ray.cluster.host_memory import host_parts
from openrs_ray.cluster.learner_memory import AWAKE, learner_phases
from openrs_ray.cluster.memory import ROOM, plan
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig

_CHANGE, _TIGHT = 0.05, 0.08
"""Prices in the ranking, as shares of the fastest step's time: of each change, and of using more than `ROOM` of a GPU."""
_LOOKED_AT = 40
"""Combinations to check, the best first. Dropping changes that turn out not to be needed may alter their order."""


@dataclass(frozen=True, slots=True)
class Found:
    """Changes with which the run fits, and their effect."""

    options: Options
    peak: float
    """Bytes of the fullest GPU."""
    host: float
    """Bytes of the host's memory."""
    step_s: tuple[float, float]
    """Seconds of a step at the best and at the worst end of the forecast."""
    more_s: tuple[float, float] | None
    """Seconds of a step above those without the changes, at either end; None if nothing could be sampled without them."""

    @property
    def kind(self) -> frozenset[str]:
        return _kind(self.options)

    @property
    def slowdown(self) -> float:
        """Share by which a step takes longer."""
        return self.more_s[0] / (self.step_s[0] - self.more_s[0]) if self.more_s else 0.0


def _kind(options: Options) -> frozenset[str]:
    """The changed fields, whatever their doses. Different optimizers count as different changes."""
    return frozenset(f"{field} {value}" if field == "learner.optimizer" else field for field, value in options.items())


def _with(found: list[Found], one: Found, price: Callable[[Found], float]) -> list[Found]:
    """Add `one` to `found`. If the changes of one contain those of the other, only the cheaper is kept."""
    like = [known for known in found if known.kind <= one.kind or one.kind <= known.kind]
    if any(price(known) <= price(one) for known in like):
        return found
    return [known for known in found if known not in like] + [one]


@dataclass(frozen=True, slots=True)
class _Half:
    """The learner or the engines under some options."""

    options: Options
    seconds: float
    learning: float
    """Bytes while the learner works."""
    pushing: float
    """Bytes in a push, its probe and a checkpoint."""


class Search:
    """Search for one recipe, model shape and kind of GPU. `host_bytes` None: the host is assumed to have enough memory.

    `kept`: fields that must keep their value.
    """

    def __init__(
        self,
        config: RunConfig,
        shape: ModelShape,
        gpu_bytes: float,
        card: Card,
        host_bytes: float | None = None,
        kept: Collection[str] = (),
    ) -> None:
        self.config, self.shape, self.gpu_bytes, self.card, self.host_bytes = config, shape, gpu_bytes, card, host_bytes
        self.kept = kept
        self._before = forecast(config, shape, card, gpu_bytes, held_out=0)
        self._samples = not any(one.crowded for one in plan(config, shape, gpu_bytes))
        self._unit = 0.0

    def cheapest(self, first: Options, most: int = 1) -> list[Found]:
        """At most `most` ways to fit, the best first. Each includes `first`, and none contains another."""
        if not {*self.kept}.isdisjoint(first):
            return []
        found: list[Found] = []
        for number, options in enumerate(self._ranked(changed(self.config, first))):
            if found and number >= _LOOKED_AT:
                break
            if one := self.checked(self._needed(first | options, first)):
                found = _with(found, one, self._price)
        return sorted(found, key=self._price)[:most]

    def _price(self, found: Found) -> float:
        tight = _TIGHT * (not self._fits(found.options, ROOM))
        return found.step_s[0] / self._unit + _CHANGE * len(found.options) + tight

    def _ranked(self, config: RunConfig) -> Iterator[Options]:
        """Combinations of options that fit, the best first."""
        learners, engines = self._learners(config), self._engines(config)
        if not learners or not engines:
            return iter(())
        self._unit = sum(min(half.seconds for half in halves) for halves in (learners, engines))
        engines.sort(key=self._rank)
        ways: list[tuple[float, Options]] = []
        for learner in learners:
            for room in (ROOM, 1.0):
                if engine := next((each for each in engines if self._fit(config, learner, each, room)), None):
                    tight = _TIGHT * (room > ROOM)
                    ways.append((self._rank(learner) + self._rank(engine) + tight, learner.options | engine.options))
        return (options for _, options in sorted(ways, key=itemgetter(0)))

    def _rank(self, half: "_Half") -> float:
        return half.seconds / self._unit + _CHANGE * len(half.options)

    def _fit(self, config: RunConfig, learner: "_Half", engine: "_Half", room: float) -> bool:
        learning, pushing = learner.learning, learner.pushing
        if config.placement.colocated:
            learning, pushing = learning + engine.learning, pushing + engine.pushing
        return max(learning, pushing) <= room * self.gpu_bytes and engine.pushing <= self.gpu_bytes

    def _learners(self, config: RunConfig) -> list[_Half]:
        halves = []
        for options in combinations(without(learner_doses(config), self.kept)):
            after = changed(config, options)
            if not self._host_holds(after):
                continue
            recomputes = after.learner.gradient_checkpointing is True or after.learner.offload_activations
            run = self._run(changed(after, {"learner.gradient_checkpointing": recomputes}))
            phases = learner_phases(run.config, self.shape, recomputes)
            sizes = {when: sum(parts.values()) for when, parts in phases.items()}
            pushing = max(sizes.pop(when) for when in AWAKE)
            halves.append(_Half(options, learning_s(run), max(sizes.values()), pushing))
        return halves

    def _engines(self, config: RunConfig) -> list[_Half]:
        """Engines that fit over as few GPUs each as possible: the forecast does not count what these exchange."""
        sizes = [] if "engine.tensor_parallel" in self.kept else larger_engines(config, self.shape)
        for size in ({}, *sizes):
            options = (each | size for each in combinations(without(engine_doses(config), self.kept)))
            halves = [half for each in options if (half := self._engine(config, each)) is not None]
            if any(half.pushing <= self.gpu_bytes for half in halves):
                return halves
        return []

    def _engine(self, config: RunConfig, options: Options) -> _Half | None:
        """None where there is no room for one completion."""
        run = self._run(changed(config, options))
        parts, sequences = engine_parts(run.config, self.shape, self.gpu_bytes)
        if not sequences or sequences < 1:
            return None
        whole = sum(parts.values())
        learning = sum(ASLEEP.values()) if run.config.rollout.sleep_while_learning else whole
        return _Half(options, sampling_s(run, config.completions_per_step), learning, whole)

    def _run(self, config: RunConfig) -> Run:
        return Run(config, self.shape, self.card, self.gpu_bytes, BEST)

    def _needed(self, options: Options, first: Options) -> Options:
        """The options without those that are neither needed nor worth their price."""
        for field in [*reversed(options)]:
            fewer = {name: value for name, value in options.items() if name != field}
            room = ROOM if self._fits(options, ROOM) else 1.0
            pays = self._step_s(fewer) > self._step_s(options) + _CHANGE * self._unit
            if field not in first and self._fits(fewer, room) and not pays:
                options = fewer
        return options

    def _step_s(self, options: Options) -> float:
        return forecast_under(BEST, changed(self.config, options), self.shape, self.card, self.gpu_bytes, 0).step_s

    def _fits(self, options: Options, room: float) -> bool:
        plans = plan(changed(self.config, options), self.shape, self.gpu_bytes)
        return all(one.fits(self.gpu_bytes * (1.0 if one.role == "rollout" else room)) for one in plans)

    def _host_holds(self, config: RunConfig) -> bool:
        return self.host_bytes is None or sum(host_parts(config, self.shape).values()) <= self.host_bytes

    def checked(self, options: Options) -> Found | None:
        """The options' effect; None if they do not fit on the GPU or the host, or are not allowed together."""
        config = changed(self.config, options)
        if not self._fits(options, 1.0) or not self._host_holds(config) or not valid(config):
            return None
        host = sum(host_parts(config, self.shape).values())
        best, worst = forecast(config, self.shape, self.card, self.gpu_bytes, held_out=0)
        before = self._before
        more = (best.step_s - before[0].step_s, worst.step_s - before[1].step_s) if self._samples else None
        peak = max(one.peak for one in plan(config, self.shape, self.gpu_bytes))
        return Found(options, peak, host, (best.step_s, worst.step_s), more)
