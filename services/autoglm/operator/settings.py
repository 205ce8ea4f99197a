"""What the operator can be told. Read once, by `app.run`'s caller."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field

from autoglm.api.names import ModelNameRules
from autoglm.common.settings import Address, ProcessSettings, StringList
from autoglm.kube.election import Terms
from autoglm.operator.observed import Settings
from autoglm.operator.ownership.claims import Installation


class OperatorSettings(ProcessSettings):
    """Flags and variables of `autoglm operator`."""

    kubeconfig: str = ""
    """Path of a kubeconfig file; empty uses the pod's own service account."""
    context: str = ""
    """Context of the kubeconfig file; empty takes its current one."""
    namespace: StringList = ()
    """Namespace whose AutoGLMDeployments are run; may be repeated. None given: all namespaces."""
    inference_image: str = "open-autoglm-inference:latest"
    """Image of replicas with the vLLM engine, unless the resource names one."""
    echo_image: str = "open-autoglm:latest"
    """Image of replicas with the echo engine: the operator's own."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of both: Always, IfNotPresent or Never."""
    allow_host_path: bool = False
    """Whether spec.model.cache may be a directory of the node. Whoever may write an
    AutoGLMDeployment may then read and write any of it."""
    model_name_rules: ModelNameRules = ""
    """Which namespaces may claim which model names, as JSON: [{"names": ["gpt-*"], "namespaces":
    ["platform"]}] reserves the names for the namespaces. The gateway needs the same. Empty: every
    namespace may claim every name."""
    gateway_namespace: str = "autoglm-system"
    """Namespace of the gateway."""
    gateway_service: str = "open-autoglm-gateway"
    """Service of the gateway, whose pods are asked what they can route to."""
    gateway_url: str = ""
    """Where users reach the gateway; shown as status.url."""
    monitoring_namespace: str = "monitoring"
    """Namespace from which Prometheus may read the replicas' metrics."""
    tracing_endpoint: str = ""
    """Where replicas send spans unless the resource says so, such as http://collector:4317."""
    prometheus_url: str = ""
    """Where KEDA asks for metrics; empty is the Prometheus operator's Service in the monitoring
    namespace."""
    metrics_address: Address = "127.0.0.1:9090"
    """Where kubelet probes and metrics are served, as HOST:PORT."""
    leader_election: bool = True
    """Whether operators agree by a Lease on who writes. Without it only one may run."""
    lease_namespace: str = "autoglm-system"
    """Namespace of the Lease."""
    lease_name: str = "autoglm-operator"
    """Name of the Lease."""
    lease_duration_seconds: int = Field(default=10, ge=5, le=300)
    """How long after the last renewal another operator takes over, in seconds."""
    operator_class: str = Field(
        default="", max_length=63, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
    )
    """Class of this operator: it runs the resources whose spec.operatorClass is the same. Empty is
    the default class."""
    claim_timeout_seconds: float = Field(default=300.0, ge=5)
    """A resource of another installation is taken over when the Lease of that installation has not
    been renewed for so long, in seconds."""
    identity: str = Field(default="", max_length=90)
    """Name of this operator in the Lease and in events, to which a random suffix is added; empty
    takes the host's (the pod's)."""
    workers: int = Field(default=16, ge=1)
    """Resources reconciled at once, and the most writes on their way at once; while writes are slow
    because there are many of them, fewer are sent."""
    resync_seconds: float = Field(default=300.0, gt=0)
    """Every resource is looked at again after so long, in seconds, whatever happened."""
    request_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the API server may take to respond to a read, in seconds."""
    write_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long the API server may take to carry out a write, in seconds. It ends before that where
    the Lease is not renewed in time, so that another operator can take over."""

    @property
    def who(self) -> str:
        return self.identity or socket.gethostname()

    @property
    def terms(self) -> Terms:
        return Terms(self.lease_duration_seconds)

    @property
    def installation(self) -> Installation:
        return Installation(f"{self.lease_namespace}/{self.lease_name}", self.operator_class)

    @property
    def children(self) -> Settings:
        """The part that children depend on."""
        return Settings(
            inference_image=self.inference_image,
            echo_image=self.echo_image,
            image_pull_policy=self.image_pull_policy,
            allow_host_path=self.allow_host_path,
            gateway_namespace=self.gateway_namespace,
            monitoring_namespace=self.monitoring_namespace,
            tracing_endpoint=self.tracing_endpoint,
            prometheus_url=self.prometheus_url,
            gateway_url=self.gateway_url,
            installation=self.installation,
        )
