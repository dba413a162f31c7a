"""Changes that a run makes by itself from step to step: stages, the weight of the entropy, the reference."""
