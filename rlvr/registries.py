"""The registries of rlvr: which names a configuration may use for what. Nothing is imported before it is asked for."""

from __future__ import annotations

from verifiers.registry import VERIFIERS, Registry

ADVANTAGES = Registry("rlvr.advantages", "advantage estimator")
ENGINES = Registry("rlvr.engines", "engine")
LOSSES = Registry("rlvr.losses", "loss")
SANDBOXES = Registry("rlvr.sandboxes", "sandbox")
SUITES = Registry("rlvr.suites", "suite")

__all__ = ["ADVANTAGES", "ENGINES", "LOSSES", "SANDBOXES", "SUITES", "VERIFIERS", "Registry"]
