"""What a run changes by itself from step to step: stages, the weight of the entropy, the reference."""
