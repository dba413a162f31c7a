"""A small model that can be made anywhere in under a minute, and the arithmetic it is right about only sometimes."""
