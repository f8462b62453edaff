"""rlvr: reinforcement learning from verifiable rewards for language models that reason."""

__version__ = "0.1.0"
