"""Evaluation: benchmarks, figures over many samples, intervals, paired tests, tables."""
