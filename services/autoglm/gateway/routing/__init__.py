"""Routing: chooses an endpoint for a request by a policy. `pick` decides, `Router` keeps state."""

from autoglm.gateway.routing.decide import pick
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.policies import POLICIES
from autoglm.gateway.routing.router import Router
from autoglm.gateway.routing.types import Decision, Reason

__all__ = ["POLICIES", "Decision", "Memory", "Reason", "Router", "pick"]
