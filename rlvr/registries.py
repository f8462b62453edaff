"""The registries of rlvr: which names a configuration may use for what. Nothing is imported before it is asked for."""

from __future__ import annotations

from verifiers.registry import SANDBOXES, VERIFIERS, Registry

ADVANTAGES = Registry("rlvr.advantages", "advantage estimator")
ENGINES = Registry("rlvr.engines", "engine")
ENVIRONMENTS = Registry("rlvr.environments", "environment")
LOSSES = Registry("rlvr.losses", "loss")
SUITES = Registry("rlvr.suites", "suite")

__all__ = ["ADVANTAGES", "ENGINES", "ENVIRONMENTS", "LOSSES", "SANDBOXES", "SUITES", "VERIFIERS", "Registry"]
