"""Operator configuration. Read once, by the caller of `app.run`."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field

from autoglm.api.names import ModelNameRules
from autoglm.common.settings import Address, ProcessSettings, StringList
from autoglm.kube.election import Terms
from autoglm.operator.model_defaults import ModelDefaults, ModelDefaultsJson, read_defaults
from autoglm.operator.ownership.claims import Installation


class OperatorSettings(ProcessSettings):
    """Flags and environment variables of `autoglm operator`."""

    kubeconfig: str = ""
    """Path of a kubeconfig file; empty uses the pod's own service account."""
    context: str = ""
    """Context of the kubeconfig file; empty uses its current one."""
    namespace: StringList = ()
    """Namespace whose AutoGLMDeployments are reconciled; may be repeated. Default: all."""
    inference_image: str = "open-autoglm-inference:latest"
    """Image of replicas with the vLLM engine, unless the resource sets one."""
    echo_image: str = "open-autoglm:latest"
    """Image of replicas with the echo engine: the operator's own."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Pull policy of both: Always, IfNotPresent or Never."""
    allow_host_path: bool = False
    """Allow spec.model.cache to be a directory of the node. Every user who may write an
    AutoGLMDeployment can then read and write any such directory."""
    model_name_rules: ModelNameRules = ""
    """Which namespaces may claim which model names, as JSON: [{"names": ["gpt-*"], "namespaces":
    ["platform"]}] reserves the names for the namespaces. The gateway needs the same. Empty: every
    namespace may claim every name."""
    model_defaults: ModelDefaultsJson = ""
    """What the pods of every model get, as JSON: imagePullSecrets, tolerations, priorityClassName,
    proxy, caBundle, hubToken and serviceAccountAnnotations, as the chart's value `models` has them.
    Resources override them. Empty: nothing."""
    ip_family: Literal["IPv4", "IPv6"] = "IPv4"
    """Addresses that replicas listen on: IPv4, or IPv6, which takes IPv4 connections as well."""
    gateway_namespace: str = "autoglm-system"
    """Namespace of the gateway."""
    gateway_service: str = "open-autoglm-gateway"
    """Service of the gateway, whose pods are polled for the pods that they can route to."""
    gateway_url: str = ""
    """URL of the gateway for users; published as status.url."""
    monitoring_namespace: str = "monitoring"
    """Namespace from which Prometheus may read the replicas' metrics."""
    tracing_endpoint: str = ""
    """Where replicas send spans unless the resource sets it, such as http://collector:4317."""
    prometheus_url: str = ""
    """Where KEDA queries metrics; empty is the Prometheus operator's Service in the monitoring
    namespace."""
    metrics_address: Address = "127.0.0.1:9090"
    """Where kubelet probes and metrics are served, as HOST:PORT."""
    leader_election: bool = True
    """Elect a leader by a Lease, which alone writes. Without it only one operator may run."""
    lease_namespace: str = "autoglm-system"
    """Namespace of the Lease."""
    lease_name: str = "autoglm-operator"
    """Name of the Lease."""
    lease_duration_seconds: int = Field(default=10, ge=5, le=300)
    """How long after the last renewal another operator may become leader, in seconds."""
    operator_class: str = Field(
        default="", max_length=63, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
    )
    """Class of this operator: it reconciles the resources whose spec.operatorClass is the same.
    Empty is the default class."""
    claim_timeout_seconds: float = Field(default=300.0, ge=5)
    """A resource of another installation is taken over when the Lease of that installation has not
    been renewed for so long, in seconds."""
    identity: str = Field(default="", max_length=90)
    """Name of this operator in the Lease and in events, to which a random suffix is added; empty
    uses the hostname (of the pod)."""
    workers: int = Field(default=16, ge=1)
    """Concurrent reconciles, and the most concurrent writes; fewer while the API server is
    congested."""
    resync_seconds: float = Field(default=300.0, gt=0)
    """Period after which every resource is reconciled again even without a change, in seconds."""
    request_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the API server may take to respond to a read, in seconds."""
    write_timeout_seconds: float = Field(default=60.0, gt=0)
    """How long the API server may take to carry out a write, in seconds. It ends before that where
    the Lease is not renewed in time, so that another operator can take over."""

    @property
    def identity_or_hostname(self) -> str:
        return self.identity or socket.gethostname()

    @property
    def models(self) -> ModelDefaults:
        return read_defaults(self.model_defaults)

    @property
    def terms(self) -> Terms:
        return Terms(self.lease_duration_seconds)

    @property
    def installation(self) -> Installation:
        return Installation(f"{self.lease_namespace}/{self.lease_name}", self.operator_class)
