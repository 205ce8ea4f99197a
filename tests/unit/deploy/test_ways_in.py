"""Ways into the cluster: Ingresses, routes of the Gateway API, and the gateway's certificate."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.deploy.test_chart import container, named, of_kind, settings_of

Object = dict[str, Any]
Render = Callable[..., list[Object]]
Template = Callable[..., str]
REST = (
    "gateway.ingress.rest.enabled=true",
    "gateway.ingress.rest.className=nginx",
    "gateway.ingress.rest.hosts={llm.example.com,api.example.com}",
    "gateway.ingress.rest.tls.secretName=certificate",
    r"gateway.ingress.rest.annotations.cert-manager\.io/cluster-issuer=letsencrypt",
)
GRPC = ("gateway.ingress.grpc.enabled=true", "gateway.ingress.grpc.hosts={grpc.example.com}")
PARENT = "parentRefs[0].name=public"
CERTIFICATE = (
    "gateway.tls.certificate.enabled=true",
    "gateway.tls.certificate.issuerRef.name=company-ca",
)


def ports_of_service(objects: list[Object]) -> dict[str, int]:
    service = named(objects, "Service", "open-autoglm-gateway")
    return {port["name"]: port["port"] for port in service["spec"]["ports"]}


def test_no_way_in_is_made_by_default(render: Render) -> None:
    kinds = {item["kind"] for item in render()}
    assert not kinds & {"Ingress", "HTTPRoute", "GRPCRoute", "Certificate"}


def test_an_ingress_leads_each_host_to_the_rest_port(render: Render) -> None:
    objects = render(*REST)
    ingress = named(objects, "Ingress", "open-autoglm-gateway-rest")
    spec = ingress["spec"]
    assert spec["ingressClassName"] == "nginx"
    hosts = ["llm.example.com", "api.example.com"]
    assert [rule["host"] for rule in spec["rules"]] == hosts
    assert spec["tls"] == [{"secretName": "certificate", "hosts": hosts}]
    for rule in spec["rules"]:
        (path,) = rule["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/", "Prefix")
        service = path["backend"]["service"]
        assert service["name"] == "open-autoglm-gateway"
        assert service["port"]["number"] == ports_of_service(objects)["http"]
    assert ingress["metadata"]["annotations"] == {"cert-manager.io/cluster-issuer": "letsencrypt"}


def test_grpc_has_an_ingress_and_annotations_of_its_own(render: Render) -> None:
    protocol = r"gateway.ingress.grpc.annotations.nginx\.ingress\.kubernetes\.io/backend-protocol"
    objects = render(*REST, *GRPC, f"{protocol}=GRPC")
    ingress = named(objects, "Ingress", "open-autoglm-gateway-grpc")
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["port"]["number"] == ports_of_service(objects)["grpc"]
    assert list(ingress["metadata"]["annotations"].values()) == ["GRPC"]
    assert "tls" not in ingress["spec"] and "ingressClassName" not in ingress["spec"]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        (REST, "https://llm.example.com"),
        (REST[:-2], "http://llm.example.com"),
        ((*REST, "gateway.url=https://other.example.com"), "https://other.example.com"),
        ((*REST, "gateway.ingress.rest.hosts={*.example.com}"), "http://open-autoglm-gateway."),
    ],
)
def test_resources_show_the_url_of_the_ingress(
    render: Render, values: tuple[str, ...], url: str
) -> None:
    assert settings_of(render(*values), "operator")["gateway_url"].startswith(url)


@pytest.mark.parametrize(
    ("kind", "value", "port"),
    [("HTTPRoute", "httpRoute", "http"), ("GRPCRoute", "grpcRoute", "grpc")],
)
def test_a_route_leads_from_its_gateways_to_a_port(
    render: Render, kind: str, value: str, port: str
) -> None:
    objects = render(
        f"gateway.{value}.enabled=true",
        f"gateway.{value}.{PARENT}",
        f"gateway.{value}.parentRefs[0].namespace=infra",
        f"gateway.{value}.hostnames={{llm.example.com}}",
    )
    route = named(objects, kind, "open-autoglm-gateway")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [{"name": "public", "namespace": "infra"}]
    assert route["spec"]["hostnames"] == ["llm.example.com"]
    (rule,) = route["spec"]["rules"]
    number = ports_of_service(objects)[port]
    assert rule["backendRefs"] == [{"name": "open-autoglm-gateway", "port": number}]
    assert len(of_kind(objects, "HTTPRoute")) + len(of_kind(objects, "GRPCRoute")) == 1


def test_the_gateways_in_front_end_no_stream_by_default(render: Render) -> None:
    enabled = ("gateway.httpRoute.enabled=true", f"gateway.httpRoute.{PARENT}")
    (route,) = of_kind(render(*enabled), "HTTPRoute")
    assert route["spec"]["rules"][0]["timeouts"] == {"request": "0s"}


@pytest.mark.parametrize("more", [(), ("gateway.tls.secretName=own",)])
def test_the_gateway_serves_with_the_certificate_that_cert_manager_makes(
    render: Render, more: tuple[str, ...]
) -> None:
    objects = render(*CERTIFICATE, *more)
    spec = named(objects, "Certificate", "open-autoglm-gateway")["spec"]
    issuer = {"name": "company-ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["issuerRef"] == issuer
    pod = named(objects, "Deployment", "open-autoglm-gateway")["spec"]["template"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tls"]
    assert volume["secret"]["secretName"] == spec["secretName"]
    assert spec["secretName"] == ("own" if more else "open-autoglm-gateway-tls")
    assert "--tls-cert-file=/etc/autoglm/tls/tls.crt" in container(objects, "gateway")["args"]


def test_the_certificate_has_the_names_that_clients_inside_use(render: Render) -> None:
    objects = render(*CERTIFICATE)
    names = named(objects, "Certificate", "open-autoglm-gateway")["spec"]["dnsNames"]
    for service in ("open-autoglm-gateway", "open-autoglm-gateway-pods"):
        assert named(objects, "Service", service)
        assert {f"{service}.autoglm-system", f"{service}.autoglm-system.svc"} < set(names)
    assert "localhost" in names
    url = settings_of(objects, "operator")["gateway_url"]
    assert url.startswith("https://open-autoglm-gateway.")


def test_public_names_take_the_place_of_those_inside(render: Render) -> None:
    objects = render(
        *CERTIFICATE,
        "gateway.tls.certificate.dnsNames={llm.example.com}",
        "gateway.tls.certificate.duration=2160h",
    )
    spec = named(objects, "Certificate", "open-autoglm-gateway")["spec"]
    assert (spec["dnsNames"], spec["duration"]) == (["llm.example.com"], "2160h")


@pytest.mark.parametrize(
    ("value", "named_in_message"),
    [
        ("gateway.ingress.rest.enabled=true", "gateway.ingress.rest.hosts is empty"),
        ("gateway.ingress.grpc.hosts={http://a}", "/gateway/ingress/grpc/hosts/0"),
        ("gateway.ingress.rest.host=a", "host"),
        ("gateway.httpRoute.enabled=true", "gateway.httpRoute.parentRefs is empty"),
        ("gateway.grpcRoute.enabled=true", "gateway.grpcRoute.parentRefs is empty"),
        ("gateway.grpcRoute.timeouts.request=1s", "timeouts"),
        ("gateway.tls.certificate.enabled=true", "gateway.tls.certificate.issuerRef.name is empty"),
        ("gateway.tls.certificate.dnsNames={a_b}", "/gateway/tls/certificate/dnsNames/0"),
        ("gateway.tls.certificate.duration=90d", "/gateway/tls/certificate/duration"),
        ("gateway.httpRoute.timeouts.request=forever", "/gateway/httpRoute/timeouts/request"),
    ],
)
def test_a_wrong_value_is_rejected_by_name(
    template: Template, value: str, named_in_message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(named_in_message)):
        template("--set", value)
