"""Who of those that want a model goes on to its pods, who waits, and who is refused.

`queue` decides for one model and is pure, as are its parts: `lane` (order within a priority),
`fairness` (between tenants), `pace` (how fast the queue moves), `capacity` (what the pods can
take). `line` carries a queue's verdicts out, `admission` holds all queues.
"""

from autoglm.gateway.admission.admission import Admission, AdmissionSettings, Policy
from autoglm.gateway.admission.line import LineSettings
from autoglm.gateway.admission.queue import Bounds

__all__ = ["Admission", "AdmissionSettings", "Bounds", "LineSettings", "Policy"]
