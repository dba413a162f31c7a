"""Trained policies for use elsewhere: how to prompt them, model cards, folders and repositories to share."""
