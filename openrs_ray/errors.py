"""The two kinds of failure a person reads: what they can mend before the run, and what went wrong while it ran."""


class UserError(Exception):
    """Something the user can mend (a recipe, a path, a size). One sentence: what is wrong and how to mend it. Exit code 2."""


class RunError(Exception):
    """Something that broke while the run was going. Says who, who was waited for and how long. Exit code 1."""


class Recurring(RunError):
    """A failure that would come again: to start or resume the run as it is cannot help, something must be changed first."""


class Lost(RunError):
    """An actor, or what it drives, died or no longer answers. What it was asked can be asked of another."""


def first_line(error: BaseException) -> str:
    """What happened, out of a library's longer message, ready to stand at the end of a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".")
