"""One YAML recipe fine-tunes a language model."""

__version__ = "0.1.0"
