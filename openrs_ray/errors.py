"""The two kinds of failure a person reads: what they can mend before the run, and what went wrong while it ran."""


class UserError(Exception):
    """Something the user can mend (a recipe, a path, a size). One sentence: what is wrong and how to mend it. Exit code 2."""


class RunError(Exception):
    """Something that broke while the run was going. Says who, who was waited for and how long. Exit code 1."""


class Recurring(RunError):
    """A failure that would come again: to start or resume the run as it is cannot help, something must be changed first."""


class Lost(RunError):
    """An actor, or what it drives, died or no longer answers. What it was asked can be asked of another."""


class EngineDied(Lost):
    """An engine that died of an error of its own. Its arguments: the worker's number, the error, and where its log is."""

    @property
    def error(self) -> str:
        """The last error in the engine's log, one line."""
        return str(self.args[1])

    def __str__(self) -> str:
        worker, error, where = self.args
        return f"rollout worker {worker} lost its engine: {error}{where}"
