"""Gateway configuration: flags and environment variables. Read once, by the caller of `app.run`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from autoglm.api.names import ModelNameRules
from autoglm.api.spec.traffic import (
    Hedging,
    OutlierDetection,
    PrefixCache,
    RoutingPolicy,
    StreamRecovery,
)
from autoglm.common.addresses import TrustedProxies
from autoglm.common.settings import Address, ServiceSettings, StringList
from autoglm.common.tls import TlsFiles
from autoglm.gateway.admission import AdmissionSettings, Bounds
from autoglm.gateway.edges.inbound_memory import process_limit
from autoglm.gateway.edges.slow_client import SLOW_READER_SECONDS
from autoglm.gateway.endpoints.static_discovery import Sources
from autoglm.gateway.identity.rules import IdentitySources, TokenRules, is_loopback
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.proxy.timeouts import StreamTimeouts
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, SHARE
from autoglm.gateway.settings_checks import (
    address_or_empty,
    endpoint_urls,
    jwks_file_or_url,
    networks_of_proxies,
    origins,
)
from autoglm.validation import bounds as content_bounds

# The types of the parts hold the defaults.
_ADMISSION = AdmissionSettings()
_HEDGING = Hedging()
_OUTLIERS = OutlierDetection()
_QUEUE = _ADMISSION.queue
_RECOVERY = StreamRecovery()
_RETRIES = RetryPolicy()
_SOURCES = Sources()
_TOKENS = TokenRules("", ())
# So many addresses, at least, fill all connections; a browser opens six, a small pool ten.
_ADDRESSES, _LEAST_PER_ADDRESS = 8, 16


class GatewaySettings(ServiceSettings):
    """Flags and variables of `autoglm gateway`."""

    data_plane: Literal["embedded", "envoy"] = "embedded"
    """What proxies requests: this process, or an Envoy beside it (the extra [envoy], or `envoy` on
    the PATH), which this process configures and whose requests it routes."""
    envoy_concurrency: int = Field(default=2, gt=0)
    """Worker threads of Envoy, each with its own connections to the pods."""
    envoy_directory: str = ""
    """Directory shared with an Envoy that is started elsewhere, with -c DIRECTORY/envoy.yaml once
    that file exists, such as a sidecar of the official image; empty: this process starts Envoy."""
    grpc_address: Address = "127.0.0.1:50051"
    """Address for gRPC clients, as HOST:PORT; port 0 takes a free port."""
    http_address: Address = "127.0.0.1:8080"
    """Address for REST clients, as HOST:PORT."""
    endpoint_picker_address: Annotated[str, AfterValidator(address_or_empty)] = ""
    """Address for other gateways' Envoys to query the pod for a request, as HOST:PORT (the Gateway
    API Inference Extension's endpoint picker protocol, over TLS); empty: no endpoint picker."""
    endpoint_picker_cert_file: str = ""
    """PEM certificate chain of that port; empty: a self-signed one, which no client can verify.
    Re-read when it changes."""
    endpoint_picker_key_file: str = ""
    """PEM private key of that certificate."""
    endpoint_picker_fallbacks: int = Field(default=0, ge=0, le=8)
    """Pods that are listed after the picked one, for proxies that retry in its order
    (such as Envoy's override_host, which Istio uses); clusters of ORIGINAL_DST use the first."""
    endpoint_picker_plaintext: bool = False
    """Whether that port is served without TLS, such as behind a mesh's sidecar."""
    metrics_address: Address = "127.0.0.1:9090"
    """Address for kubelet probes, metrics and the admin pages, as HOST:PORT."""
    endpoint: Annotated[StringList, AfterValidator(endpoint_urls)] = ()
    """A server to send requests to; may be repeated. grpc://HOST:PORT or grpcs://HOST:PORT is a pod
    of ours, http(s)://HOST:PORT[/BASE] any OpenAI server, dns+grpc(s)://NAME:PORT all addresses of
    a name, looked up every few seconds."""
    endpoints_file: str = ""
    """JSON file {"endpoints": [URL, ...]}, re-read when it changes; an invalid one is ignored."""
    kubernetes: bool = False
    """Whether to serve the AutoGLMDeployments of a Kubernetes cluster and to follow their pods."""
    namespace: StringList = ()
    """A namespace whose AutoGLMDeployments are served; may be repeated. None given, all are."""
    model_name_rules: ModelNameRules = ""
    """Which namespaces may claim which model names, for --kubernetes, as JSON: [{"names":
    ["gpt-*"], "namespaces": ["platform"]}] reserves the names for the namespaces. The operator
    needs the same. Empty: every namespace may claim every name."""
    kubeconfig: str = ""
    """Kubeconfig file for --kubernetes; empty takes $KUBECONFIG, then the pod's service account,
    then ~/.kube/config."""
    dns_refresh_seconds: float = Field(default=_SOURCES.dns_refresh_seconds, gt=0)
    """How often names of dns+grpc endpoints are looked up, in seconds."""
    max_body_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Longest request body or message that is accepted, in bytes."""
    max_message_bytes: int = Field(default=0, ge=0)
    """Longest gRPC message that the embedded data plane accepts, in bytes; 0 is --max-body-bytes.
    gRPC copies a message as a whole on the event loop, where all other requests wait for it: 4 MiB
    keep that under 10 ms. Longer requests can then come by REST, whose bodies are not copied."""
    max_messages: int = Field(default=content_bounds.DEFAULT_MAX_MESSAGES, gt=0)
    """Most messages of one chat request; pods have the same setting."""
    request_memory_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Bytes that open requests of all models may hold: bodies being read, waiting and in flight,
    transcripts of responses for recovery, and 32 KiB each. Over it a request is rejected with
    QUEUE_FULL. One tenant may hold half, so a body may be no longer than that. The process takes
    up to twice as much."""
    memory_bytes: int = Field(default=0, ge=0)
    """Bytes that the gateway may take, with Envoy where that is in the same container; 0 is the
    limit of the container, or the machine's memory. Near it, requests that have been arriving
    longest are rejected with QUEUE_FULL."""
    envoy_memory_bytes: int = Field(default=0, ge=0)
    """Bytes that Envoy may take; 0 is half of --memory-bytes. Near it Envoy resets the streams that
    hold most."""
    max_connections: int = Field(default=10_000, gt=0)
    """Connections that may be open at once, on the gRPC and on the REST port each; over it a new
    one is closed, on the REST port only where no idle one can be."""
    max_connections_per_address: int = Field(default=0, ge=0)
    """Connections that one client address, or an IPv6 network of 64 bits, may have open: on the
    REST port, and with the data plane envoy on both ports together. Over it the address's longest
    idle one is closed (REST, embedded), or the new one. 0 is an eighth of --max-connections, 16 at
    least."""
    trusted_proxies: Annotated[StringList, AfterValidator(networks_of_proxies)] = ()
    """A network of proxies, as CIDR, that name their clients by X-Forwarded-For or the PROXY
    protocol; may be repeated. Bounds for each address apply to those clients, never to the
    proxies. None given, the connection's other end is the client."""
    max_inflight: int = Field(default=_ADMISSION.requests, gt=0)
    """Requests served or waiting at once, of all models; over it one is rejected (QUEUE_FULL)."""
    queue_requests: int = Field(default=_QUEUE.requests, gt=0)
    """Requests of one model that may wait for its pods; over it the newest of the tenant with the
    most is rejected with QUEUE_FULL."""
    queue_bytes: int = Field(default=_QUEUE.size, gt=0)
    """Bytes of the bodies of one model's waiting requests."""
    queue_timeout_seconds: float = Field(default=_QUEUE.wait_seconds, gt=0)
    """Longest wait for a slot, in seconds; after it a request is rejected."""
    queue_ageing_seconds: float = Field(default=_QUEUE.ageing_seconds, gt=0)
    """A request that has waited so long is sent before its turn one time in ten, so that low
    priorities get through, in seconds."""
    pod_waiting_requests: int = Field(default=_ADMISSION.spare, ge=0)
    """Requests sent to a pod beyond its batch, so that it never runs dry."""
    allowed_origins: Annotated[StringList, AfterValidator(origins)] = ()
    """An origin whose web pages may use the REST port from a browser (CORS), as SCHEME://HOST[:PORT];
    may be repeated; * is every origin. None given, browsers let no page of another origin."""
    slow_reader_seconds: float = Field(default=SLOW_READER_SECONDS, gt=0)
    """Seconds after which the stream of a client that reads nothing is cancelled."""
    default_timeout_seconds: float = Field(default=600.0, gt=0)
    """Timeout of a request without a deadline, in seconds."""
    max_timeout_seconds: float = Field(default=3600.0, gt=0)
    """Longest timeout that a client may set, in seconds; longer ones are shortened."""
    connect_timeout_seconds: float = Field(default=2.0, gt=0)
    """Timeout for a pod to accept a connection and list its models, in seconds."""
    load_timeout_seconds: float = Field(default=3.0, gt=0)
    """A pod that sends no load message for so long is taken out of the pool, in seconds. An idle
    one sends one a second, so give two at least."""
    load_messages_per_second: float = Field(default=1000.0, gt=0)
    """Load messages that all pods together may send to this gateway, and messages about their
    caches; with more pods than a twentieth of it, each reports less often, down to once a
    second."""
    first_token_timeout_seconds: float = Field(default=300.0, ge=0)
    """Timeout for the first token of a stream, after which another pod is tried, in seconds,
    where the model's AutoGLMDeployment sets none; 0 is no limit."""
    chunk_timeout_seconds: float = Field(default=60.0, ge=0)
    """Timeout between two chunks of a stream, after which another pod resumes it, in seconds,
    where the model's AutoGLMDeployment sets none; 0 is no limit."""
    recovery_attempts: int = Field(default=_RECOVERY.max_attempts, ge=0)
    """Attempts to resume one broken stream on other pods; 0 turns recovery off."""
    recovery_max_tokens: int = Field(default=_RECOVERY.max_replay_tokens, gt=0)
    """Tokens of one stream that are kept for recovery; a longer one is not recovered."""
    hedging_percentile: float = Field(default=0.0, ge=0, lt=100)
    """Send a stream's request to a second pod when its first chunk takes longer than this
    percentile of those before; the slower one is cancelled. 0 turns hedging off."""
    hedging_max_extra_ratio: float = Field(default=_HEDGING.max_extra_ratio, ge=0, le=1)
    """Second requests allowed for each request, on the average."""
    outlier_consecutive_failures: int = Field(default=_OUTLIERS.consecutive_failures, ge=0)
    """Failures in a row after which a pod is ejected for some time; 0 turns this off."""
    retry_attempts: int = Field(default=_RETRIES.attempts, ge=1)
    """Attempts for one request before its first chunk, the first one included; 1 is no retry."""
    retry_budget_ratio: float = Field(default=_RETRIES.ratio, ge=0, le=1)
    """Retries allowed for each request, on the average."""
    retry_budget_per_second: float = Field(default=_RETRIES.per_second, ge=0)
    """Retries allowed each second on top of the ratio."""
    routing_policy: RoutingPolicy = "PrefixAffinity"
    """How an endpoint is chosen where the model's AutoGLMDeployment names no policy."""
    route_debug: bool = False
    """Whether every caller may read decision traces (header x-autoglm-debug, `autoglm
    explain-route`); role Admin always may."""
    drain_delay_seconds: float = Field(default=1.0, ge=0)
    """Seconds after SIGTERM in which new requests are still accepted while health is NOT_SERVING,
    so that load balancers notice first."""
    upstream_ca_file: str = ""
    """PEM authorities of the pods' certificates (grpcs, https); empty trusts the system's."""
    upstream_cert_file: str = ""
    """PEM certificate to present to pods (mTLS). Re-read when it changes."""
    upstream_key_file: str = ""
    """PEM private key of that certificate."""
    upstream_api_key_file: str = ""
    """File with the bearer token for http(s) endpoints that want one, in one line; re-read when it
    changes."""
    upstream_api_key: str = Field(default="", repr=False)
    """The same token itself. The flag shows in the process list: give --upstream-api-key-file."""

    api_keys_file: str = ""
    """JSON file of API keys, as `autoglm keys create` makes them; re-read when it changes."""
    jwt_jwks: Annotated[str, AfterValidator(jwks_file_or_url)] = ""
    """Public keys of JSON Web Tokens (RS256, ES256): a JWKS file, re-read when it changes, or an
    https URL, fetched every five minutes and when a token names a new key."""
    jwt_secret_file: str = ""
    """File with the secret of JSON Web Tokens (HS256), of 32 bytes at least; re-read when it
    changes. Either this or --jwt-jwks."""
    jwt_issuer: str = ""
    """What a token's `iss` must be."""
    jwt_audience: StringList = ()
    """What a token's `aud` must have one of; may be repeated."""
    jwt_tenant_claim: str = Field(default=_TOKENS.tenant_claim, min_length=1)
    """The claim that names the tenant; a path such as `org.id` reaches into objects."""
    jwt_roles_claim: str = Field(default=_TOKENS.roles_claim, min_length=1)
    """The claim that lists roles (User, Admin, Auditor). A token without it is a User's."""
    jwt_models_claim: str = Field(default=_TOKENS.models_claim, min_length=1)
    """The claim that lists the models, with * and ?, that may be used; without it all of them."""
    tenants_file: str = ""
    """JSON file of the tenants' limits: share, priority, requests and tokens a minute; re-read
    when it changes."""
    gateway_replicas: int = Field(default=1, ge=1)
    """Number of gateways that serve the same clients; each allows its part of the tenants' rate
    limits."""
    prefix_cache: PrefixCache = "Isolated"
    """Whether tenants share a pod's cached prefixes, where the model's AutoGLMDeployment sets
    nothing: Isolated, or Shared, which lets a tenant infer from latency and cached_tokens what
    others have sent. Without API keys and tokens there are no tenants to separate."""
    prefix_cache_key_file: str = ""
    """File with a secret of 16 bytes at least that keeps tenants' cached prompts and stored
    responses apart, the same for all gateways of an installation; empty makes one at the start."""
    allow_anonymous: bool | None = None
    """Whether requests without a credential are served. Not given: only where neither keys nor
    tokens are configured and clients can come from this machine alone."""

    @model_validator(mode="after")
    def _check_endpoint_picker_files(self) -> Self:
        if bool(self.endpoint_picker_cert_file) != bool(self.endpoint_picker_key_file):
            raise ValueError(
                "endpoint_picker_cert_file and endpoint_picker_key_file belong together: give both "
                "or none"
            )
        return self

    @model_validator(mode="after")
    def _check_upstream_key(self) -> Self:
        if self.upstream_api_key and self.upstream_api_key_file:
            raise ValueError(
                "upstream_api_key and upstream_api_key_file are two keys for the same servers: "
                "give upstream_api_key_file alone"
            )
        return self

    @model_validator(mode="after")
    def _check_memory(self) -> Self:
        least = SHARE * (self.max_body_bytes + REQUEST_BYTES)
        if self.request_memory_bytes < least:
            raise ValueError(
                f"request_memory_bytes is {self.request_memory_bytes}; a tenant may hold half of "
                f"it, and a request of max_body_bytes ({self.max_body_bytes}) needs {least}: give "
                "more, or a smaller max_body_bytes"
            )
        return self

    @model_validator(mode="after")
    def _check_identity(self) -> Self:
        if problem := self.identity.problem:
            raise ValueError(problem)
        return self

    @property
    def identity(self) -> IdentitySources:
        tokens = TokenRules(
            self.jwt_issuer,
            self.jwt_audience,
            self.jwt_tenant_claim,
            self.jwt_roles_claim,
            self.jwt_models_claim,
        )
        addresses = (self.grpc_address, self.http_address, self.endpoint_picker_address)
        said = (self.jwt_jwks, self.jwt_secret_file, self.jwt_issuer, self.jwt_audience)
        return IdentitySources(
            self.allow_anonymous,
            all(is_loopback(address) for address in addresses if address),
            self.api_keys_file,
            tokens if any(said) else None,
            self.jwt_jwks,
            self.jwt_secret_file,
            self.proxies,
        )

    @property
    def proxies(self) -> TrustedProxies:
        return TrustedProxies(self.trusted_proxies)

    @property
    def connections_per_address(self) -> int:
        """Return how many connections one client address may have."""
        share = max(_LEAST_PER_ADDRESS, self.max_connections // _ADDRESSES)
        return min(self.max_connections_per_address or share, self.max_connections)

    @property
    def server_tls(self) -> TlsFiles:
        return TlsFiles(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def endpoint_picker_tls(self) -> TlsFiles:
        return TlsFiles(self.endpoint_picker_cert_file, self.endpoint_picker_key_file)

    @property
    def upstream_tls(self) -> TlsFiles:
        return TlsFiles(self.upstream_cert_file, self.upstream_key_file, self.upstream_ca_file)

    def with_memory(self, found: int) -> Self:
        """Return the settings with the system's memory limit where none is set."""
        total = self.memory_bytes or found
        envoy = self.envoy_memory_bytes or total // 2
        return self.model_copy(update={"memory_bytes": total, "envoy_memory_bytes": envoy})

    @property
    def process_memory_bytes(self) -> int:
        """Return the bytes that this process may use before slow messages are rejected."""
        has_envoy = self.data_plane == "envoy" and not self.envoy_directory
        envoy = self.envoy_memory_bytes if has_envoy else 0
        return process_limit(self.memory_bytes, envoy)

    @property
    def message_bytes(self) -> int:
        """Return the longest message that gRPC accepts, in bytes."""
        return min(self.max_message_bytes or self.max_body_bytes, self.max_body_bytes)

    @property
    def content_bounds(self) -> content_bounds.Bounds:
        return content_bounds.Bounds(messages=self.max_messages)

    @property
    def admission(self) -> AdmissionSettings:
        bounds = Bounds(
            self.queue_requests,
            self.queue_bytes,
            self.queue_timeout_seconds,
            self.queue_ageing_seconds,
        )
        return AdmissionSettings(self.max_inflight, bounds, self.pod_waiting_requests)

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            self.retry_attempts, self.retry_budget_ratio, self.retry_budget_per_second
        )

    @property
    def stream_timeouts(self) -> StreamTimeouts:
        return StreamTimeouts(
            self.first_token_timeout_seconds or None, self.chunk_timeout_seconds or None
        )

    @property
    def stream_recovery(self) -> StreamRecovery:
        # Without validation: the flag has no upper limit, unlike the field of a resource.
        return StreamRecovery.model_construct(
            mode="Replay" if self.recovery_attempts else "Off",
            max_attempts=self.recovery_attempts,
            max_replay_tokens=self.recovery_max_tokens,
        )

    @property
    def hedging(self) -> Hedging:
        return Hedging(
            percentile=self.hedging_percentile or None,
            max_extra_ratio=self.hedging_max_extra_ratio,
        )

    @property
    def outlier_detection(self) -> OutlierDetection:
        return OutlierDetection(consecutive_failures=self.outlier_consecutive_failures)
