"""Which endpoint a call goes to, by policy: `pick` decides, `Router` remembers."""

from autoglm.gateway.routing.contracts import Decision, Reason
from autoglm.gateway.routing.decide import pick
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.policies import POLICIES
from autoglm.gateway.routing.router import Router

__all__ = ["POLICIES", "Decision", "Memory", "Reason", "Router", "pick"]
