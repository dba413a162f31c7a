"""The weight push on real actors: engines that start with dummy weights agree with the learner, and a lost push is seen."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import file_transport
import numpy as np
import pytest
from faulty_transfer import (
    GARBAGE_PUSH,
    IDLE_PUSH,
    OLD_PUSH,
    UNDONE_PUSH,
    UNMERGED_PUSH,
    UNPACKED_PUSH,
    VECTORS_PUSH,
    FaultyWorker,
)
from push_system import EOS, PROBLEMS, System, build
from system import judged_group
from tiny import naive_logprobs, naive_model

from actors.cluster.placement import Placement, reserve
from actors.loop.push import check_followed, check_receipts
from actors.rollout.worker import Request, RolloutWorker
from openrs_ray.cluster.layout import plan_layout
from openrs_ray.common.private_folder import folder_of
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.records import Completion

SHORT, LONG = 8, 400
"""Tokens of completions that end at their limit only."""


class LongWinded(RolloutWorker):
    def _sampling(self, request: Request) -> Any:
        sampling = super()._sampling(request)
        if request.max_tokens in (SHORT, LONG):
            sampling.stop_token_ids = []
        return sampling


ON_TWO_RANKS, ADAPTERS = "tied, ZeRO-3 on two ranks", "adapters, untied, two engines"
LAYOUTS: dict[str, tuple[bool, dict[str, dict[str, Any]]]] = {
    ON_TWO_RANKS: (True, {"placement": {"num_learner_gpus": 2}, "learner": {"zero_stage": 3}}),
    ADAPTERS: (False, {"placement": {"num_rollout_gpus": 2}, "learner": {"lora": {"rank": 4}}}),
    "one engine on two workers": (False, {"placement": {"num_rollout_gpus": 2}, "engine": {"tensor_parallel": 2}}),
}


@pytest.fixture(scope="module")
def system(
    request: pytest.FixtureRequest, ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Engines and learner of a layout. Before and after every test they have the same weights."""
    tied, changes = LAYOUTS[request.param]
    learner = {"learning_rate": 3e-3, "warmup_share": 0, **changes.get("learner", {})}
    rollout = {"max_completion_tokens": LONG, "staleness": 1}
    system = build(
        tmp_path_factory.mktemp("system"), tied, LongWinded,
        **changes | {"run": {"steps": 100}, "learner": learner, "rollout": rollout},
    )  # fmt: skip
    try:
        push(system, 0)
        yield system
    finally:
        system.close()


def push(system: System, version: int) -> None:
    report = system.run(system.push.push(version))
    assert report.probe_difference is not None and report.probe_difference < 1e-4


def learn(system: System, version: int, completions: list[Completion]) -> None:
    groups = [judged_group(p.index, p, [c for c in completions if c.position == p.index], version) for p in PROBLEMS]
    assert system.run(system.learners.train(groups, version)).metrics["grad_norm"] > 0


def exported(system: System, folder: Path) -> Any:
    """The learner's policy as plain transformers has it in float64."""
    system.run(system.learners.export(folder))
    return naive_model(folder)


@pytest.mark.cpu_engine
@pytest.mark.parametrize(
    "system",
    [ON_TWO_RANKS, *(pytest.param(layout, marks=pytest.mark.slow) for layout in [*LAYOUTS][1:])],
    indirect=True,
)
def test_engines_hold_the_learners_weights_after_every_push(system: System, tmp_path: Path) -> None:
    """Sampler log-probabilities against plain transformers in float64, reading the policy the learner exports."""
    previous: dict[tuple[int, int], np.ndarray] = {}
    for version in range(system.push.version, system.push.version + 3):
        reference = exported(system, tmp_path / f"policy-{version}")
        for temperature in (1.0, 0.7):
            completions = system.run(system.sample(version, temperature))
            assert len(completions) == 16
            assert {c.worker for c in completions} == {worker.place for worker in system.workers.supervisor.serving}
            for c in completions:
                assert [(s.version, s.start, s.end) for s in c.versions] == [(version, 0, len(c.token_ids))]
                expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids, temperature)
                np.testing.assert_allclose(c.logprobs, expected.detach().numpy(), atol=1e-3)
                assert (c.finish_reason == "stop") == (c.token_ids[-1] == EOS)
        texts = {(c.position, c.sample): c.logprobs for c in completions}
        assert not previous or any(
            len(texts[k]) != len(previous[k]) or not np.allclose(texts[k], previous[k]) for k in texts
        ), "a training step must change what the engines sample"
        previous = texts
        learn(system, version + 1, completions)
        push(system, version + 1)
    assert all(path.is_relative_to(folder) for path, folder in vllm_sockets(system)), "others can open them"
    assert not unloaded(system), "every layer has its weights, and the log does not say otherwise at every push"


@pytest.mark.cpu_engine
@pytest.mark.parametrize("system", [ON_TWO_RANKS], indirect=True)
def test_completions_go_on_through_a_push(system: System, tmp_path: Path) -> None:
    """Every token by the policy whose version it carries, as float64 transformers has it; what was cached is computed anew."""
    old, new = system.push.version, system.push.version + 1

    async def push_when_one_has_ended() -> list[Completion]:
        requests = [Request(p.index, 0, p.prompt_ids, p.index, 1.0, LONG if p.index else SHORT) for p in PROBLEMS]
        found: list[Completion] = []
        async for completion in system.workers.completions(requests):
            if not found:
                await system.push.push(new)
            found.append(completion)
        return found

    references = {old: exported(system, tmp_path / "policy-old")}
    learn(system, new, system.run(system.sample(old, 1.0)))
    references[new] = exported(system, tmp_path / "policy-new")
    completions = system.run(push_when_one_has_ended())
    assert len(completions) == len(PROBLEMS)
    for c in completions:
        prompt = PROBLEMS[c.position].prompt_ids
        assert [span.version for span in c.versions] == ([old, new] if c.position else [old])
        assert c.versions[-1].end == len(c.token_ids) == (LONG if c.position else SHORT)
        by_version = {
            version: naive_logprobs(model, prompt, c.token_ids).detach().numpy()
            for version, model in references.items()
        }
        for span in c.versions:
            part = slice(span.start, span.end)
            np.testing.assert_allclose(c.logprobs[part], by_version[span.version][part], atol=1e-3)
            assert not np.allclose(c.logprobs[part], by_version[old + new - span.version][part], atol=1e-3)


@pytest.mark.cpu_engine
@pytest.mark.slow
def test_a_transport_as_the_page_has_it(ray_session: None, tmp_path: Path) -> None:
    """One file and its name are all that a transport takes: the engine samples from what the learner has after two pushes."""
    source = Path(file_transport.__file__).read_text(encoding="utf-8")
    page = Path(__file__).parents[2] / "docs" / "extending.md"
    assert f"```python\n{source}```" in page.read_text(encoding="utf-8")

    def place(config: RunConfig) -> Placement:
        return reserve(replace(plan_layout(config, "cpu"), transport="file_transport:Files"), config.placement.wait_s)

    system = build(tmp_path, False, place=place, learner={"learning_rate": 3e-3})
    try:
        for version in range(2):
            system.run(system.push.push(version))
            reference = exported(system, tmp_path / f"policy-{version}")
            completions = system.run(system.sample(version, 1.0))
            for c in completions:
                expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids)
                np.testing.assert_allclose(c.logprobs, expected.detach().numpy(), atol=1e-3)
            learn(system, version + 1, completions)
    finally:
        system.close()


@pytest.mark.cpu_engine
@pytest.mark.slow
@pytest.mark.parametrize("system", [ADAPTERS], indirect=True)
def test_an_engine_in_place_of_a_lost_one_gets_the_frozen_weights_first(system: System, tmp_path: Path) -> None:
    """Engines that already have them get adapters alone."""
    supervisor, version = system.workers.supervisor, system.push.version + 1
    kept, lost = supervisor.serving
    supervisor.report = lambda text: None
    learn(system, version, system.run(system.sample(version - 1, 1.0)))

    async def replace_it() -> None:
        supervisor.lost(lost, "the test says so")
        await supervisor._coming[lost.place]

    system.run(replace_it())
    new = next(worker for worker in supervisor.alive if worker is not kept)
    assert kept.has_base and not new.has_base
    push(system, version)
    assert new.has_base and new in supervisor.serving
    reference = exported(system, tmp_path / "policy")
    for c in system.run(system.sample(version, 1.0)):
        expected = naive_logprobs(reference, PROBLEMS[c.position].prompt_ids, c.token_ids)
        np.testing.assert_allclose(c.logprobs, expected.detach().numpy(), atol=1e-3)
    assert {c.worker for c in system.run(system.sample(version, 1.0))} == {kept.place, new.place}


def vllm_sockets(system: System) -> list[tuple[Path, Path]]:
    """Sockets of the engines that are named by a UUID alone, each with the folder that it belongs into."""
    replicas = [replica.processes for replica in system.workers.supervisor.serving if replica.processes]
    found = [
        (path, folder_of(replica.mark))
        for replica in replicas
        for process in replica.found()
        for connection in process.net_connections("unix")
        if (path := Path(connection.laddr)).name.count("-") == 4 and len(path.name) == 36
    ]
    assert found, "an engine talks to its process over sockets"
    return found


def unloaded(system: System) -> list[str]:
    """What the engines' logs say of layers without weights."""
    workers = [process for worker in system.workers.supervisor.serving for process in worker.processes.found()]  # type: ignore[union-attr]
    logs = {Path(f"/proc/{process.pid}/fd/{end}").resolve() for process in workers for end in (1, 2)}
    lines = [line for log in logs if log.is_file() for line in log.read_text(errors="replace").splitlines()]
    assert lines, "vLLM says something while it starts"
    return [line for line in lines if "Failed to load weights" in line]


AS_RECIPES = {"model": {"dtype": "bfloat16"}, "learner": {"zero_stage": 2}, "push": {"probe_tolerance": 0.05}}


@pytest.mark.cpu_engine
@pytest.mark.parametrize("changes", [AS_RECIPES, pytest.param({}, marks=pytest.mark.slow)], ids=["bfloat16", "float32"])
def test_a_lost_push_is_noticed_even_at_a_tiny_learning_rate(
    ray_session: None, tmp_path: Path, changes: dict[str, dict[str, Any]]
) -> None:
    """Five ways to lose a push; weights that moved by 1e-6 would pass any comparison of log-probabilities."""
    learner = {"learning_rate": 1e-6, "warmup_share": 0, "schedule": "constant"}
    system = build(tmp_path, False, FaultyWorker, **changes | {"learner": learner | changes.get("learner", {})})
    try:
        outcomes = {}
        for number in range(1, UNDONE_PUSH + 2):
            try:
                outcomes[number] = system.run(system.push.push(number - 1)).probe_difference
            except RunError as error:
                outcomes[number] = str(error)
            if number == 1:
                completions = system.run(system.sample(0, 1.0))
            groups = [
                judged_group(p.index, p, [c for c in completions if c.position == p.index], number) for p in PROBLEMS
            ]
            system.run(system.learners.train(groups, number))
        noise = 2e-2 if changes else 1e-4
        assert all(outcomes[number] < noise for number in (1, 3, UNDONE_PUSH + 1)), outcomes
        assert "did not arrive" in outcomes[GARBAGE_PUSH] and "rollout worker 0" in outcomes[GARBAGE_PUSH]
        lost = {number: outcomes[number] for number in (IDLE_PUSH, VECTORS_PUSH, UNPACKED_PUSH, UNDONE_PUSH)}
        assert all("did not take effect" in str(outcome) for outcome in lost.values()), outcomes
        assert "still have other values" in lost[UNPACKED_PUSH] and "embed_tokens" in lost[UNDONE_PUSH]
    finally:
        system.close()


@pytest.mark.cpu_engine
@pytest.mark.slow
def test_a_lost_push_of_adapters_is_noticed(ray_session: None, tmp_path: Path) -> None:
    """The same losses as above, and two more: old adapters merged again, or none at all."""
    learner = {"learning_rate": 1e-3, "warmup_share": 0, "schedule": "constant", "zero_stage": 2, "lora": {"rank": 4}}
    system = build(tmp_path, False, FaultyWorker, **AS_RECIPES | {"learner": learner})
    try:
        outcomes, sizes = {}, set()
        for number in range(1, UNMERGED_PUSH + 2):
            try:
                report = system.run(system.push.push(number - 1))
                outcomes[number] = report.probe_difference
                sizes.add(report.nbytes)
            except RunError as error:
                outcomes[number] = str(error)
            if number == 1:
                completions = system.run(system.sample(0, 1.0))
            groups = [
                judged_group(p.index, p, [c for c in completions if c.position == p.index], number) for p in PROBLEMS
            ]
            system.run(system.learners.train(groups, number))
        good = {number: outcomes.pop(number) for number in (1, 3, UNDONE_PUSH, 8, 10, 12)}
        assert all(isinstance(outcome, float) and outcome < 2e-2 for outcome in good.values()), (good, outcomes)
        assert "did not arrive" in outcomes.pop(GARBAGE_PUSH)
        assert outcomes.keys() == {IDLE_PUSH, VECTORS_PUSH, UNPACKED_PUSH, OLD_PUSH, UNMERGED_PUSH}
        assert all("did not take effect" in str(outcome) for outcome in outcomes.values()), outcomes
    finally:
        system.close()


@pytest.mark.parametrize(
    ("receipt", "sentence"),
    [
        ({"digests": [1], "missing": [], "stale": []}, "received 1 of 2 buckets"),
        ({"digests": [1, 3], "missing": [], "stale": []}, "1 of them are not the bytes"),
        ({"digests": [1, 2], "base": [8], "missing": [], "stale": []}, "does not hold the frozen weights"),
        ({"digests": [1, 2], "missing": ["a.weight"], "stale": []}, r"were not loaded \(a.weight"),
        ({"digests": [1, 2], "missing": [], "stale": ["n.weight"]}, r"still have other values \(n.weight"),
    ],
)
def test_a_bad_receipt_names_worker_and_rank(receipt: dict[str, Any], sentence: str) -> None:
    good = {"digests": [1, 2], "missing": [], "stale": []}
    check_receipts(7, [1, 2], {0: [good, good]})
    with pytest.raises(RunError, match=r"policy version 7 .*rollout worker 1 \(tensor-parallel rank 1\).*" + sentence):
        check_receipts(7, [1, 2], {0: [good, good], 1: [good, receipt]})


def test_an_engine_must_move_with_the_learner_however_little_that_moves() -> None:
    rng = np.random.default_rng(0)
    learner, noise = rng.normal(-3, 1, 200).astype(np.float32), rng.normal(0, 5e-3, (2, 200)).astype(np.float32)
    after = learner + rng.normal(0, 1.5e-3, 200).astype(np.float32)
    before = (learner, learner + noise[0])
    check_followed(7, "rollout worker 1", before, (after, after + noise[1]))
    check_followed(7, "rollout worker 1", before, before)  # a step of nothing
    slightly = learner + rng.normal(0, 2e-4, 200).astype(np.float32)
    check_followed(7, "rollout worker 1", before, (slightly, before[1]))  # rounding may hide it
    with pytest.raises(
        RunError, match=r"policy version 7 did not take effect on rollout worker 1: .* moved by 0\.0012"
    ):
        check_followed(7, "rollout worker 1", before, (after, before[1]))
