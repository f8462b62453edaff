"""Judges a response to a problem. Imports no torch; model-based verifiers import it when they are built."""

from verifiers.errors import GoldError, VerifierError, VerifierTimeout
from verifiers.types import Message, Outcome, Problem, Response, StepScore, Verdict, Verifier

__all__ = [
    "GoldError",
    "Message",
    "Outcome",
    "Problem",
    "Response",
    "StepScore",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifierTimeout",
]
