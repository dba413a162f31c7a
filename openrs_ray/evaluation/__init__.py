"""Evaluation that can be believed: benchmarks, figures over many samples, intervals, paired tests, tables."""
