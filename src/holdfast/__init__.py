"""Holdfast keeps a language model's refusals fastened while it is fine-tuned, and proves it."""

__version__ = "0.1.0"
