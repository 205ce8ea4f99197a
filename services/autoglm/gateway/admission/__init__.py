"""Admission: decides which requests for a model proceed, which wait and which are rejected.

`queue` decides for one model and is pure, as are its parts: `lane` (order within a priority),
`fairness` (between tenants), `pace` (throughput of the queue), `capacity` (slots of the pods).
`line` applies a queue's verdicts to waiting tasks, `admission` holds all queues.
"""

from autoglm.gateway.admission.admission import Admission, AdmissionSettings, Policy
from autoglm.gateway.admission.line import LineSettings
from autoglm.gateway.admission.queue import Bounds

__all__ = ["Admission", "AdmissionSettings", "Bounds", "LineSettings", "Policy"]
