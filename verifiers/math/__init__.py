"""The verifier `math`: reads a final answer in LaTeX or plain notation and decides whether it means what the gold answer means."""

from verifiers.math.verifier import Math

__all__ = ["Math"]
