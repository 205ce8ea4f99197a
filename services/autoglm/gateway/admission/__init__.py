"""Admission: decides which requests for a model proceed, which wait and which are rejected.

`queue` decides for one model and is pure, as are its parts: `lane` (order within a priority),
`fairness` (between tenants), `capacity` (slots of the pods, and how fast they are released).
`admission` holds all queues and applies their verdicts to waiting tasks.
"""

from autoglm.gateway.admission.admission import Admission, AdmissionSettings, Policy, Slot
from autoglm.gateway.admission.queue import Bounds

__all__ = ["Admission", "AdmissionSettings", "Bounds", "Policy", "Slot"]
