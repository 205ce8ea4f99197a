"""What must hold for the chart's objects, whatever the values."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.unit.deploy.conftest import CHART

from autoglm.api import labels
from autoglm.api.names import read_rules
from autoglm.api.profile import parse_profile
from autoglm.common.settings import ProcessSettings
from autoglm.gateway.settings import GatewaySettings
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.template.admission_policy import ALLOW_HOST_PATH, admission_policy, binding

Object = dict[str, Any]
Render = Callable[..., list[Object]]
Template = Callable[..., str]
FILES = ("values.yaml", "values-dev.yaml", "values-gpu.yaml", "values-production.yaml")
EVERYTHING = (
    "tracing.endpoint=http://collector.monitoring:4317",
    "gateway.tls.secretName=certificate",
    "gateway.tls.verifyClients=true",
    "gateway.endpoints[0]=http://vllm.models:8000",
    "gateway.upstreamApiKey.secretName=upstream",
    "gateway.networkPolicy.from[0].podSelector.matchLabels.app=client",
    "operator.allowHostPath=true",
    "modelNames[0].names[0]=gpt-*",
    "modelNames[0].namespaces[0]=platform",
    "monitoring.prometheusUrl=http://prometheus.monitoring:9090",
    "networkPolicy.apiServerCIDRs[0]=10.0.0.1/32",
    "imagePullSecrets[0]=registry",
    "gateway.authentication.apiKeys.secretName=keys",
    "gateway.authentication.jwt.issuer=https://issuer.example",
    "gateway.authentication.jwt.audience[0]=autoglm",
    "gateway.authentication.jwt.jwks=https://issuer.example/jwks",
    "gateway.tenants.configMapName=tenants",
    "gateway.endpointPicker.enabled=true",
    "gateway.endpointPicker.secretName=picker",
)
KEYS = "gateway.authentication.apiKeys.secretName=keys"
TOKENS = (
    "gateway.authentication.jwt.issuer=i",
    "gateway.authentication.jwt.audience={a}",
    "gateway.authentication.jwt.secretName=s",
)


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> list[Object]:
    """Every pod's spec."""
    templates = [d["spec"]["template"]["spec"] for d in of_kind(objects, "Deployment")]
    return templates + [pod["spec"] for pod in of_kind(objects, "Pod")]


def container(objects: list[Object], component: str) -> Object:
    deployment = named(objects, "Deployment", f"open-autoglm-{component}")
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def settings_of(objects: list[Object], component: str) -> dict[str, Any]:
    """Flags and variables as the process reads them, by the names of its settings."""
    found: dict[str, Any] = {}
    running = container(objects, component)
    for flag in running["args"][1:]:
        name, _, value = flag.removeprefix("--").partition("=")
        found.setdefault(name.replace("-", "_"), []).append(value or "true")
    for variable in running["env"]:
        if variable["name"].startswith("AUTOGLM_") and "value" in variable:
            found[variable["name"].removeprefix("AUTOGLM_").lower()] = [variable["value"]]
    return {k: v if k in ("namespace", "endpoint") else v[0] for k, v in found.items()}


@pytest.mark.parametrize("file", FILES)
def test_pods_meet_the_restricted_standard(render: Render, file: str) -> None:
    for pod in pods(render(*EVERYTHING, file=file)):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for one in pod["containers"]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "capabilities": {"drop": ["ALL"]},
            }
            assert one["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert one["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
        allowed = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}
        assert all(set(v) - {"name"} <= allowed for v in pod["volumes"])


@pytest.mark.parametrize(
    ("component", "settings"), [("gateway", GatewaySettings), ("operator", OperatorSettings)]
)
@pytest.mark.parametrize("more", [(), EVERYTHING])
def test_processes_understand_all_that_they_are_given(
    render: Render, component: str, settings: type[ProcessSettings], more: tuple[str, ...]
) -> None:
    told = settings_of(render(*more, "watchNamespaces={a,b}"), component)
    assert told.keys() <= settings.model_fields.keys()
    assert settings.load(told) is not None
    assert told["namespace"] == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "name", "path"),
    [
        (GatewaySettings, "log_level", "logs.level"),
        (GatewaySettings, "log_format", "logs.format"),
        (GatewaySettings, "trace_sample_ratio", "tracing.sampleRatio"),
        (GatewaySettings, "data_plane", "gateway.dataPlane"),
        (GatewaySettings, "envoy_concurrency", "gateway.envoy.concurrency"),
        (GatewaySettings, "jwt_tenant_claim", "gateway.authentication.jwt.tenantClaim"),
        (GatewaySettings, "jwt_roles_claim", "gateway.authentication.jwt.rolesClaim"),
        (GatewaySettings, "jwt_models_claim", "gateway.authentication.jwt.modelsClaim"),
        (GatewaySettings, "prefix_cache", "gateway.prefixCache.mode"),
        (
            *(GatewaySettings, "max_connections_per_address"),
            "gateway.maxConnectionsPerAddress",
        ),
        (OperatorSettings, "operator_class", "operator.class"),
        (OperatorSettings, "allow_host_path", "operator.allowHostPath"),
        (OperatorSettings, "image_pull_policy", "image.pullPolicy"),
        (OperatorSettings, "monitoring_namespace", "monitoring.namespace"),
    ],
)
def test_values_that_become_flags_have_the_flags_defaults(
    settings: type[ProcessSettings], name: str, path: str
) -> None:
    value = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in path.split("."):
        value = value[key]
    assert value == settings.model_fields[name].default


@pytest.mark.parametrize("file", FILES)
def test_the_grace_period_covers_the_drain(render: Render, file: str) -> None:
    objects = render(file=file)
    told = GatewaySettings.load(settings_of(objects, "gateway"))
    pod = named(objects, "Deployment", "open-autoglm-gateway")["spec"]["template"]["spec"]
    drain = told.drain_delay_seconds + told.shutdown_grace_seconds
    assert pod["terminationGracePeriodSeconds"] == drain + 5


def test_the_operator_lets_in_the_gateways_of_the_chart(render: Render) -> None:
    objects = render()
    for component in (labels.GATEWAY, labels.OPERATOR):
        deployment = named(objects, "Deployment", f"open-autoglm-{component}")
        of_pod = deployment["spec"]["template"]["metadata"]["labels"]
        assert of_pod[labels.NAME] == labels.PRODUCT
        assert of_pod[labels.COMPONENT] == component


def test_the_operator_finds_the_gateways_admin_port(render: Render) -> None:
    objects = render()
    told = settings_of(objects, "operator")
    service = named(objects, "Service", told["gateway_service"])
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert ports == {
        "grpc": labels.GRPC_PORT,
        "http": labels.HTTP_PORT,
        "metrics": labels.METRICS_PORT,
    }


def test_the_admin_port_is_on_no_service_for_clients(render: Render) -> None:
    objects = render("gateway.service.type=LoadBalancer")
    service = named(objects, "Service", "open-autoglm-gateway")
    assert [port["name"] for port in service["spec"]["ports"]] == ["grpc", "http"]


def test_containers_listen_where_services_and_probes_point(render: Render) -> None:
    objects = render()
    for component in ("gateway", "operator"):
        running = container(objects, component)
        told = settings_of(objects, component)
        for port in running["ports"]:
            listening = told[f"{port['name']}_address"]
            assert listening == f"0.0.0.0:{port['containerPort']}"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert running[probe]["httpGet"]["port"] == "metrics"


@pytest.mark.parametrize(
    ("values", "anonymous"),
    [
        ((), True),
        ((KEYS,), False),
        (TOKENS, False),
        ((KEYS, "gateway.authentication.anonymous=Always"), True),
        ((KEYS, "gateway.authentication.anonymous=Never"), False),
    ],
)
def test_a_request_without_a_credential_is_served_as_the_values_say(
    render: Render, values: tuple[str, ...], anonymous: bool
) -> None:
    told = GatewaySettings.load(settings_of(render(*values), "gateway"))
    assert told.identity.allow_anonymous is anonymous
    assert told.identity.is_configured is bool(values)


def test_files_of_keys_and_secrets_are_mounted_where_the_gateway_looks(render: Render) -> None:
    objects = render(KEYS, *TOKENS, "gateway.upstreamApiKey.secretName=u")
    told = settings_of(objects, "gateway")
    mounts = {m["name"]: m["mountPath"] for m in container(objects, "gateway")["volumeMounts"]}
    assert told["api_keys_file"] == f"{mounts['api-keys']}/keys.json"
    assert told["jwt_secret_file"] == f"{mounts['jwt']}/secret"
    assert told["upstream_api_key_file"] == f"{mounts['upstream-api-key']}/api-key"
    (pod,) = [p for p in pods(objects) if any(v["name"] == "jwt" for v in p["volumes"])]
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    own = {"prefix-cache": named(objects, "Secret", secrets["prefix-cache"])["metadata"]["name"]}
    assert secrets == {"api-keys": "keys", "jwt": "s", "upstream-api-key": "u"} | own


@pytest.mark.parametrize(
    ("values", "gateways"),
    [
        (("gateway.replicas=3",), "3"),
        (("gateway.autoscaling.enabled=true", "gateway.autoscaling.minReplicas=4"), "4"),
    ],
)
def test_gateways_know_how_many_share_the_tenants_rates(
    render: Render, values: tuple[str, ...], gateways: str
) -> None:
    objects = render("gateway.tenants.configMapName=t", *values)
    told = settings_of(objects, "gateway")
    mounts = {m["name"]: m["mountPath"] for m in container(objects, "gateway")["volumeMounts"]}
    assert told["gateway_replicas"] == gateways
    assert told["tenants_file"] == f"{mounts['tenants']}/tenants.json"


def test_an_autoscaled_deployment_says_nothing_of_replicas(render: Render) -> None:
    objects = render("gateway.autoscaling.enabled=true")
    assert "replicas" not in named(objects, "Deployment", "open-autoglm-gateway")["spec"]
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "open-autoglm-gateway"


def test_without_autoscaling_the_chart_sets_replicas(render: Render) -> None:
    objects = render("gateway.replicas=3")
    assert named(objects, "Deployment", "open-autoglm-gateway")["spec"]["replicas"] == 3
    assert not of_kind(objects, "HorizontalPodAutoscaler")


def test_the_data_plane_is_the_gateways_own_by_default(render: Render) -> None:
    assert "data_plane" not in settings_of(render(), "gateway")
    rendered = render("gateway.dataPlane=envoy")
    assert settings_of(rendered, "gateway")["data_plane"] == "envoy"


def test_an_image_of_envoy_makes_a_sidecar_that_shares_a_directory_with_the_gateway(
    render: Render,
) -> None:
    image = "gateway.envoy.image=envoyproxy/envoy:v1.40.0"
    objects = render("gateway.dataPlane=envoy", image, "gateway.tls.secretName=tls")
    told = GatewaySettings.load(settings_of(objects, "gateway"))
    pod = named(objects, "Deployment", "open-autoglm-gateway")["spec"]["template"]["spec"]
    (envoy,), (gateway,) = pod["initContainers"], pod["containers"]
    assert (envoy["image"], envoy["restartPolicy"]) == ("envoyproxy/envoy:v1.40.0", "Always")
    assert f"exec envoy -c {told.envoy_directory}/envoy.yaml" in envoy["args"][0]
    shared = {"name": "envoy", "mountPath": told.envoy_directory}
    assert shared in envoy["volumeMounts"] and shared in gateway["volumeMounts"]
    # Envoy serves the certificates, from where the gateway's settings say they are.
    tls = {"name": "tls", "mountPath": "/etc/autoglm/tls", "readOnly": True}
    assert tls in envoy["volumeMounts"] and tls in gateway["volumeMounts"]
    assert envoy["securityContext"] == gateway["securityContext"]
    # It gets the memory limit of its own container.
    (memory,) = (e for e in gateway["env"] if e["name"] == "AUTOGLM_ENVOY_MEMORY_BYTES")
    limit = {"containerName": envoy["name"], "resource": "limits.memory"}
    assert memory["valueFrom"] == {"resourceFieldRef": limit}


def test_without_the_envoy_plane_its_image_makes_no_sidecar(render: Render) -> None:
    objects = render("gateway.envoy.image=envoyproxy/envoy:v1.40.0")
    pod = named(objects, "Deployment", "open-autoglm-gateway")["spec"]["template"]["spec"]
    assert "initContainers" not in pod


def test_the_endpoint_picker_is_off_by_default(render: Render) -> None:
    objects = render("gateway.endpointPicker.secretName=picker")
    assert not [name for name in settings_of(objects, "gateway") if "picker" in name]
    assert "endpoint-picker" not in str(objects)


def test_inference_pools_find_the_endpoint_picker_on_a_service_of_its_own(render: Render) -> None:
    objects = render("gateway.endpointPicker.enabled=true", "gateway.endpointPicker.port=9100")
    told = GatewaySettings.load(settings_of(objects, "gateway"))
    assert told.endpoint_picker_address == "0.0.0.0:9100"
    service = named(objects, "Service", "open-autoglm-gateway-picker")
    assert (service["spec"]["type"], service["spec"]["ports"]) == (
        "ClusterIP",
        [
            {
                "name": "endpoint-picker",
                "port": 9100,
                "targetPort": "endpoint-picker",
                "protocol": "TCP",
                "appProtocol": "http2",
            }
        ],
    )
    ports = {port["name"]: port["containerPort"] for port in container(objects, "gateway")["ports"]}
    assert ports["endpoint-picker"] == 9100
    policy = named(objects, "NetworkPolicy", "open-autoglm-gateway")
    assert "endpoint-picker" in [port["port"] for port in policy["spec"]["ingress"][0]["ports"]]


def test_the_endpoint_pickers_certificate_is_mounted_where_it_looks(render: Render) -> None:
    enabled = ("gateway.endpointPicker.enabled=true", "gateway.endpointPicker.secretName=s")
    objects = render(*enabled)
    told = settings_of(objects, "gateway")
    mounts = {m["name"]: m["mountPath"] for m in container(objects, "gateway")["volumeMounts"]}
    assert told["endpoint_picker_cert_file"] == f"{mounts['endpoint-picker']}/tls.crt"
    assert told["endpoint_picker_key_file"] == f"{mounts['endpoint-picker']}/tls.key"
    plain = render(*enabled, "gateway.endpointPicker.plaintext=true")
    assert settings_of(plain, "gateway")["endpoint_picker_plaintext"] == "true"
    assert "endpoint_picker_cert_file" not in settings_of(plain, "gateway")


def test_rendering_twice_gives_the_same(template: Template) -> None:
    everything = [part for value in EVERYTHING for part in ("--set", value)]
    assert template(*everything) == template(*everything)


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    values = (f"image.digest={digest}", "image.registry=registry.example/team", "image.tag=x")
    objects = render(*values)
    expected = f"registry.example/team/open-autoglm@{digest}"
    assert container(objects, "operator")["image"] == expected
    told = settings_of(objects, "operator")
    assert told["echo_image"] == expected
    assert told["inference_image"] == "registry.example/team/open-autoglm-inference:0.1.0"


def test_uninstalling_keeps_the_definitions_by_default(render: Render) -> None:
    def annotations(*values: str) -> list[Any]:
        crds = of_kind(render(*values), "CustomResourceDefinition")
        return [crd["metadata"].get("annotations") for crd in crds]

    assert annotations() == [{"helm.sh/resource-policy": "keep"}] * 2
    assert annotations("crds.keep=false") == [None, None]
    assert not of_kind(render("crds.install=false"), "CustomResourceDefinition")


def test_common_labels_and_annotations_reach_every_object(render: Render) -> None:
    values = ("commonLabels.team=a", "commonAnnotations.note=b")
    for item in render(*values, file="values-production.yaml"):
        assert item["metadata"]["labels"]["team"] == "a"
        assert item["metadata"]["annotations"]["note"] == "b"


def test_a_long_release_name_still_gives_valid_names(template: Template) -> None:
    rendered = template("--set", "watchNamespaces={a}", release="r" * 53)
    names = re.findall(r"^  name: (\S+)$", rendered, re.MULTILINE)
    assert names and max(map(len, names)) <= 63


@pytest.mark.parametrize(
    ("value", "named_in_message"),
    [
        ("gateway.replica=3", "replica"),
        ("gateway.replicas=0", "/gateway/replicas"),
        ("gateway.dataPlane=nginx", "/gateway/dataPlane"),
        ("gateway.endpointPicker.port=80", "/gateway/endpointPicker/port"),
        ("image.digest=latest", "/image/digest"),
        ("tracing.endpoint=collector:4317", "/tracing/endpoint"),
        ("gateway.authentication.anonymous=Yes", "/gateway/authentication/anonymous"),
        ("gateway.authentication.jwt.jwks=http://i/k", "/gateway/authentication/jwt/jwks"),
        ("watchNamespaces={Team}", "/watchNamespaces/0"),
        ("gateway.resources.limits.memory=1GB", "/gateway/resources/limits/memory"),
        ("operator.allowHostPath=yes", "/operator/allowHostPath"),
        ("gateway.maxConnectionsPerAddress=-1", "/gateway/maxConnectionsPerAddress"),
        ("gateway.trustedProxies={proxy.example}", "/gateway/trustedProxies/0"),
        ("operator.extraArgs[0]=workers", "/operator/extraArgs/0"),
        (
            "gateway.autoscaling.enabled=true,gateway.autoscaling.minReplicas=20",
            "gateway.autoscaling.minReplicas is 20",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    template: Template, value: str, named_in_message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(named_in_message)):
        template("--set", value)


def test_the_gateway_knows_its_proxies_and_the_share_of_an_address(render: Render) -> None:
    given = ("gateway.trustedProxies={10.0.0.0/8,::1}", "gateway.maxConnectionsPerAddress=1000000")
    arguments = container(render(*given), "gateway")["args"]
    proxies = [each for each in arguments if each.startswith("--trusted-proxies")]
    assert proxies == ["--trusted-proxies=10.0.0.0/8", "--trusted-proxies=::1"]
    assert "--max-connections-per-address=1000000" in arguments


def test_gateway_and_operator_have_the_same_rules_for_model_names(render: Render) -> None:
    given = ("modelNames[0].names[0]=gpt-*", "modelNames[0].namespaces[0]=platform")
    objects = render(*given)
    for component, settings in (("gateway", GatewaySettings), ("operator", OperatorSettings)):
        env = {e["name"]: e.get("value", "") for e in container(objects, component)["env"]}
        rules = read_rules(
            settings(model_name_rules=env["AUTOGLM_MODEL_NAME_RULES"]).model_name_rules
        )
        assert rules.may_claim("platform", "gpt-4o") and not rules.may_claim("team", "gpt-4o")
    names = {e["name"] for c in ("gateway", "operator") for e in container(render(), c)["env"]}
    assert "AUTOGLM_MODEL_NAME_RULES" not in names


def test_the_admission_policy_follows_the_values(render: Render) -> None:
    objects = render()
    name = "open-autoglm-operator"
    policy = named(objects, "ValidatingAdmissionPolicy", name)
    bound = named(objects, "ValidatingAdmissionPolicyBinding", name)
    assert policy["spec"] == admission_policy()["spec"]
    assert bound["spec"] == binding()["spec"]

    limited = render("watchNamespaces={a,b}", "operator.allowHostPath=true")
    policy = named(limited, "ValidatingAdmissionPolicy", name)
    bound = named(limited, "ValidatingAdmissionPolicyBinding", name)
    assert policy["spec"]["variables"][0] == ALLOW_HOST_PATH | {"expression": "true"}
    (expression,) = bound["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert expression["values"] == ["a", "b"]

    without = {o["kind"] for o in render("admissionPolicy.enabled=false")}
    assert not {kind for kind in without if kind.startswith("ValidatingAdmissionPolicy")}


def test_directories_of_nodes_are_allowed_only_where_that_is_requested(render: Render) -> None:
    settings = settings_of(render("operator.allowHostPath=true"), "operator")
    assert settings["allow_host_path"] == "true"
    assert "allow_host_path" not in settings_of(render(), "operator")


def test_gateways_share_one_prefix_cache_key_where_there_are_tenants(render: Render) -> None:
    made = render(KEYS)
    (secret,) = of_kind(made, "Secret")
    assert len(secret["stringData"]["key"]) >= 32
    (pod,) = [p for p in pods(made) if any(c["name"] == "gateway" for c in p["containers"])]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "prefix-cache"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]

    given = render(KEYS, "gateway.prefixCache.secretName=mine")
    assert not of_kind(given, "Secret")
    (pod,) = [p for p in pods(given) if any(c["name"] == "gateway" for c in p["containers"])]
    (volume,) = [v for v in pod["volumes"] if v["name"] == "prefix-cache"]
    assert volume["secret"]["secretName"] == "mine"

    assert not of_kind(render(), "Secret")


KNOWN = ("--api-versions", "autoglm.io/v1alpha1/AutoGLMProfile")


def profiles_of(text: str) -> dict[str, Object]:
    found = of_kind([d for d in yaml.safe_load_all(text) if d], "AutoGLMProfile")
    return {profile["metadata"]["name"]: profile for profile in found}


def test_profiles_are_valid_and_may_be_left_out(template: Template) -> None:
    found = profiles_of(template(*KNOWN))

    assert set(found) == {"nvidia-l4", "nvidia-a100-80gb", "nvidia-h100", "cpu"}
    assert all(parse_profile(profile).spec.resources.requests for profile in found.values())
    assert profiles_of(template(*KNOWN, "--set", "profiles.install=false")) == {}
    fewer = template(*KNOWN, "--set", "profiles.items.nvidia-l4=null")
    assert "nvidia-l4" not in profiles_of(fewer)


def test_the_cpu_profile_has_the_image_for_cpus(template: Template) -> None:
    def image(*values: str) -> Any:
        sets = [part for value in values for part in ("--set", value)]
        return profiles_of(template(*KNOWN, *sets))["cpu"]["spec"]["engine"]["image"]

    assert image() == "open-autoglm-inference:0.1.0-cpu"
    assert image("image.registry=registry.example", "inferenceImage.tag=2-cpu") == (
        "registry.example/open-autoglm-inference:2-cpu"
    )
    assert image("profiles.items.cpu.engine.image=mine:1") == "mine:1"


def test_profiles_follow_the_definition_where_it_is_new_and_stay_the_releases_own(
    template: Template,
) -> None:
    metadata = profiles_of(template())["cpu"]["metadata"]

    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert metadata["annotations"] == {
        "helm.sh/hook": "post-install,post-upgrade",
        "meta.helm.sh/release-name": "open-autoglm",
        "meta.helm.sh/release-namespace": "autoglm-system",
    }
    assert "annotations" not in profiles_of(template(*KNOWN))["cpu"]["metadata"]
