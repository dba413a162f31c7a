"""Exceptions for people."""


class UserError(Exception):
    """A mistake that the user can mend. One sentence: what is wrong and how to mend it. Exit code 2."""


class RunError(Exception):
    """A failure during the run. Names the component, what it waited for and how long. Exit code 1."""


class Recurring(RunError):
    """A failure that starting or resuming the run unchanged would repeat."""


class Lost(RunError):
    """An actor died or no longer answers. Its work can be given to another."""


class EngineDied(Lost):
    """An engine died of its own error. Arguments: the worker's number, the error, where its log is."""

    @property
    def error(self) -> str:
        """Last error in the engine's log, one line."""
        return str(self.args[1])

    def __str__(self) -> str:
        worker, error, where = self.args
        return f"rollout worker {worker} lost its engine: {error}{where}"
