"""The toy: a small model that is made anywhere in under a minute, and arithmetic that it solves about half the time."""
