"""The environment `multi_turn_check`: a wrong answer gets a feedback and another try."""

from openrs_ray.config.task import Task
from openrs_ray.environments.reply import Message
from openrs_ray.records import Status
from openrs_ray.rewards.answers.kinds import checker
from openrs_ray.rewards.records import JudgeItem

FEEDBACK = "Your answer is not correct. Find the mistake and answer again."
NO_ANSWER = "There is no answer in the asked form. Give your answer again."


class MultiTurnCheck:
    """Checks each turn as the task's rewards do. Rewards look at the last turn alone, so that a later try is worth as much."""

    def __init__(self, task: Task, tries: int = 2, feedback: str = FEEDBACK, no_answer: str = NO_ANSWER) -> None:
        if not isinstance(tries, int) or tries < 1:
            raise ValueError(f"tries must be a number from 1, not {tries!r}")
        if not feedback or not no_answer:
            raise ValueError("feedback and no_answer must be texts that say something")
        self.tries = tries
        self.feedback = {Status.WRONG: feedback, Status.NO_ANSWER: no_answer}
        self.check = checker(task.answer, task.rewards)

    def reply(
        self, messages: list[Message], *, problem: str, golds: tuple[str, ...], row: dict[str, object], token_count: int
    ) -> str | None:
        turns = [message["content"] for message in messages if message["role"] == "assistant"]
        if len(turns) >= self.tries:
            return None
        status = self.check(JudgeItem(turns[-1], token_count, "stop", golds, problem, row))[0]
        return self.feedback.get(status)
