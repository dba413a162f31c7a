"""Environments: each turns a problem into a rollout."""
