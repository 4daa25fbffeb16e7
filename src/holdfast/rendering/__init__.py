"""Conversations as what a model reads: prompting, templates, token ids, labels."""
