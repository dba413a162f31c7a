"""Judges every recorded completion again, by the run's own rewards, from the record alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from openrs_ray.algorithm.unusable import without_judgement
from openrs_ray.audit.findings import Check
from openrs_ray.audit.run import AuditedRun, Recorded, recorded
from openrs_ray.audit.texts import Reader
from openrs_ray.audit.verdict_sums import OF_MODELS, difference, with_models, without
from openrs_ray.config.task import Task
from openrs_ray.data.completions import Texts
from openrs_ray.records import FAILED_ENVIRONMENT, Group, Status, Verdict
from openrs_ray.rewards.judge import Judges, group_item, judge_group, warm_up_of, with_own_group_rewards
from openrs_ray.rewards.own import OF_ALL, OwnReward
from openrs_ray.rewards.own_functions import own_rewards
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import GroupItem, GroupRewards, JudgeItem
from openrs_ray.rewards.registry import GROUP, weighted_parameters

_PATIENCE = 3.0
"""Times the run's deadline: this machine may be slower."""
Pool = CheckPool[JudgeItem | GroupItem, Verdict | GroupRewards]


def check_verdicts(run: AuditedRun, processes: int) -> Check:
    check = Check("verdicts, judged again")
    own = {
        task.name: own_rewards(
            task.rewards.weights, task.rewards.parameters, run.config.user_code, run.config.rewards.memory_gib
        )
        for task in run.config.tasks
    }
    judges, rewards = Judges.of(run.config.tasks, own), run.config.rewards
    prepare = partial(judges.prepare, warm_up_of(run.config.tasks))
    limits = processes, _PATIENCE * rewards.deadline_s, rewards.memory_gib
    with Pool(judges, *limits, prepare=prepare, own_deadline_s=judges.own_deadline_s) as pool:
        again = Again(run, own, judges, pool, Reader.of(run), check)
        for part in recorded(run):
            again.judge(part)
    again.say()
    return check


@dataclass
class Again:
    """Judges the files of the record again, and compares."""

    run: AuditedRun
    own: Mapping[str, Mapping[str, OwnReward]]
    judges: Judges
    pool: Pool
    reader: Reader | None
    check: Check
    counts: Counter[str] = field(default_factory=Counter)

    def judge(self, part: Recorded) -> None:
        name = self.run.name(part.file.path)
        asked = [self._asked(part, place, name) for place in range(len(part.groups))]
        for group, (items, futures) in zip(part.groups, asked, strict=True):
            task = self.run.config.task(group.problem.task)
            again = [self._again(group, sample, future) for sample, future in enumerate(futures)]
            finished = self._with_group_rewards(task, group, items, again)
            for sample, (then, now) in enumerate(zip(group.verdicts, finished, strict=True)):
                if again[sample] is not None and (what := difference(then, now, task.rewards.weights)):
                    where = f"position {group.position} sample {sample}"
                    self.check.find(name, f"{where}: {what}", part.file.step)

    def _asked(
        self, part: Recorded, place: int, name: str
    ) -> tuple[list[JudgeItem], list[Future[Verdict | GroupRewards] | None]]:
        """Items of a group, and their checks on the way; None for what is not judged again."""
        group = part.groups[place]
        texts = [Texts(text, text) for text in group.texts]
        if self.reader is not None:
            texts = self.reader.texts(group, part.rows[place][0]["prompt"])
            self._compare_texts(part, group, texts, name)
        task = self.run.config.task(group.problem.task)
        staged = bool(self.run.settings(part.file.attempt).rollout.stages)
        within = group.sampling.max_completion_tokens if group.sampling and staged else None
        items = [_item(group, sample, own, within) for sample, own in enumerate(texts)]
        unknown = part.cut(place) and _reads_row(task, self.own[task.name])
        skipped = [unknown or self._unknown_text(group, sample) for sample in range(len(items))]
        self.counts["long rows"] += sum(map(bool, skipped)) if unknown else 0
        return items, [
            None if skip or _is_environments(verdict) else self.pool.submit(item)
            for item, verdict, skip in zip(items, group.verdicts, skipped, strict=True)
        ]

    def _unknown_text(self, group: Group, sample: int) -> bool:
        """True for a rollout of several turns where no tokenizer cuts the last turn out of it."""
        unknown = self.reader is None and not group.rollouts[sample].sampled.all()
        self.counts["several turns"] += unknown
        return unknown

    def _compare_texts(self, part: Recorded, group: Group, texts: Sequence[Texts], name: str) -> None:
        for sample, (then, now) in enumerate(zip(group.texts, texts, strict=True)):
            self.counts["texts"] += 1
            if then != now.whole:
                place = next((i for i, (a, b) in enumerate(zip(then, now.whole, strict=False)) if a != b), -1)
                what = f"position {group.position} sample {sample}: the text is not what its tokens say"
                self.check.find(
                    name, f"{what} (from character {place if place >= 0 else 'at its end'})", part.file.step
                )

    def _again(self, group: Group, sample: int, future: Future[Verdict | GroupRewards] | None) -> Verdict | None:
        """The verdict of today, before the group's rewards; None where it cannot be compared."""
        then = group.verdicts[sample]
        if future is None:
            self.counts["environments"] += _is_environments(then)
            return None
        now = future.result()
        assert isinstance(now, Verdict)
        now = without_judgement(group.rollouts[sample], now)
        self.counts["judged"] += 1
        for status in (Status.TIMEOUT, Status.ERROR):
            if then.status is status:
                self.counts[f"{status} then"] += 1
                self.counts[f"{status} then, judged now"] += now.status.judged
                return None
            if now.status is status:
                self.counts[f"{status} now"] += 1
                return None
        return now

    def _with_group_rewards(
        self, task: Task, group: Group, items: Sequence[JudgeItem], again: Sequence[Verdict | None]
    ) -> Sequence[Verdict]:
        """Today's verdicts with the rewards that compare a group; recorded ones stand where there is none of today."""
        weights, own = task.rewards.weights, self.own[task.name]
        whole = {*GROUP, *(name for name, one in own.items() if one.judges == OF_ALL)}
        stand = [now or without(then, whole, weights) for then, now in zip(group.verdicts, again, strict=True)]
        by_models = [with_models(now, then, weights) for then, now in zip(group.verdicts, stand, strict=True)]
        lengths = [rollout.sampled_tokens for rollout in group.rollouts]
        finished = judge_group(by_models, lengths, weights, weighted_parameters(task.rewards))
        if not any(one.judges == OF_ALL for one in own.values()):
            return finished
        item = group_item(items, finished)
        return finished if item is None else with_own_group_rewards(finished, self.pool.submit(item).result(), weights)

    def say(self) -> None:
        counts, notes = self.counts, self.check.notes
        texts = f", {counts['texts']:,} texts decoded again" if counts["texts"] else ""
        self.check.looked_at = f"{counts['judged']:,} completions{texts}" if counts["judged"] else ""
        for status in (Status.TIMEOUT, Status.ERROR):
            if several := counts[f"{status} then"]:
                today = counts[f"{status} then, judged now"]
                notes.append(
                    f"{several:,} checks ended as {status} then ({today:,} of them are judged now): not compared"
                )
            if several := counts[f"{status} now"]:
                notes.append(f"{several:,} checks ended as {status} now: not compared")
        reasons = {
            "environments": "failed in their environment",
            "long rows": "are judged by rows of the data that are longer than the record keeps",
            "several turns": "have several turns, and no kept policy has a tokenizer",
        }
        notes += [
            f"{counts[name]:,} completions {why}: not judged again" for name, why in reasons.items() if counts[name]
        ]
        if any(name in task.rewards.weights for task in self.run.config.tasks for name in OF_MODELS):
            notes.append("the rewards of judge models are taken from the record: a model is not asked again")
        if self.reader is None:
            notes.append("no kept policy has a tokenizer: the texts were not decoded again")


def _item(group: Group, sample: int, texts: Texts, within: int | None) -> JudgeItem:
    """`within`: the longest completion of its stage."""
    rollout, problem = group.rollouts[sample], group.problem
    seen = texts.judged, rollout.sampled_tokens, rollout.finish_reason
    return JudgeItem(*seen, problem.gold, problem.text, problem.row, problem.task, texts.turns, within)


def _is_environments(verdict: Verdict) -> bool:
    return verdict.detail.startswith(FAILED_ENVIRONMENT)


def _reads_row(task: Task, own: Mapping[str, OwnReward]) -> bool:
    """True where cells of the data besides the gold decide."""
    return bool(own) or task.answer.kind not in ("math", "number", "exact", "set", "none")
