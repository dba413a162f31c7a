"""Figures and completions of a run in W&B, Trackio and MLflow."""
