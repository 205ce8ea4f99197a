"""What gateway and operator may do in a cluster: what their code does, and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

from autoglm.kube.kinds import CHILDREN, ENDPOINT_SLICE, EVENT, LEASE, OPTIONAL_CHILDREN, POD

Object = dict[str, Any]
Render = Callable[..., list[Object]]
READ = {"get", "list", "watch"}
WRITE = {"create", "patch", "delete"}


def rights(objects: list[Object], name: str, *kinds: str) -> dict[tuple[str, str], set[str]]:
    """Verbs by group and resource."""
    roles = (o for o in objects if o["kind"] in kinds and o["metadata"]["name"] == name)
    found: dict[tuple[str, str], set[str]] = {}
    for role in roles:
        for rule in role["rules"]:
            for key in keys(rule):
                found.setdefault(key, set()).update(rule["verbs"])
    return found


def keys(rule: Object) -> Iterator[tuple[str, str]]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            yield group, resource


def test_the_gateway_only_reads(render: Render) -> None:
    assert rights(render(), "open-autoglm-gateway", "ClusterRole") == {
        ("autoglm.io", "autoglmdeployments"): READ,
        ("discovery.k8s.io", "endpointslices"): READ,
    }


def test_the_operator_may_write_its_children_and_what_it_says(render: Render) -> None:
    expected = {(kind.group, kind.plural): READ | WRITE for kind in (*CHILDREN, *OPTIONAL_CHILDREN)}
    assert rights(render(), "open-autoglm-operator", "ClusterRole") == expected | {
        ("autoglm.io", "autoglmdeployments"): READ,
        ("autoglm.io", "autoglmdeployments/status"): {"patch"},
        ("autoglm.io", "autoglmdeployments/finalizers"): {"update"},
        (POD.group, POD.plural): READ,
        ("", "events"): READ,
        (EVENT.group, EVENT.plural): {"create", "patch"},
        # Whether another installation's claim is still held.
        (LEASE.group, LEASE.plural): {"get"},
    }


def test_leases_and_gateways_are_of_the_operators_own_namespace(render: Render) -> None:
    assert rights(render(), "open-autoglm-operator-election", "Role") == {
        (LEASE.group, LEASE.plural): {"create", "get", "update"},
        (ENDPOINT_SLICE.group, ENDPOINT_SLICE.plural): READ,
    }


def test_with_namespaces_named_nothing_is_granted_outside(render: Render) -> None:
    objects = render("watchNamespaces={a,b}")
    # Profiles are of no namespace.
    everywhere = {"ClusterRole", "ClusterRoleBinding"}
    named = {o["metadata"]["name"] for o in objects if o["kind"] in everywhere}
    assert named == {"open-autoglm-operator-profiles"}
    assert rights(objects, "open-autoglm-operator-profiles", "ClusterRole") == {
        ("autoglm.io", "autoglmprofiles"): READ
    }
    granted = {o["metadata"]["namespace"] for o in objects if o["kind"] == "Role"}
    assert granted == {"a", "b", "autoglm-system"}


def test_nothing_is_granted_by_wildcard(render: Render) -> None:
    for item in render():
        for rule in item.get("rules") or ():
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_service_accounts_give_no_token_to_other_pods(render: Render) -> None:
    accounts = [o for o in render() if o["kind"] == "ServiceAccount"]
    assert accounts and not any(account["automountServiceAccountToken"] for account in accounts)


HUB = ("models.hubToken.secretName=hub", "models.hubToken.namespaces={team,lab}")


def test_the_operator_reads_one_secret_and_writes_only_those_of_its_name(render: Render) -> None:
    objects = render(*HUB)
    election = rights(objects, "open-autoglm-operator-election", "Role")
    assert election["", "secrets"] == {"get"}
    name = "open-autoglm-operator-hub-token"
    assert rights(objects, name, "Role") == {("", "secrets"): {"create", "patch"}}
    roles = [o for o in objects if o["kind"] == "Role"]
    of_secrets = [(o, r) for o in roles for r in o["rules"] if "secrets" in r["resources"]]
    assert {o["metadata"]["namespace"] for o, _ in of_secrets} == {"autoglm-system", "team", "lab"}
    assert all(rule["resourceNames"] == ["hub"] for _, rule in of_secrets)
    assert not rights(objects, "open-autoglm-operator", "ClusterRole").get(("", "secrets"))


def test_a_token_for_all_namespaces_is_written_in_all_that_are_watched(render: Render) -> None:
    everywhere = (HUB[0], "models.hubToken.namespaces={*}")
    name = "open-autoglm-operator-hub-token"
    assert rights(render(*everywhere), name, "ClusterRole")
    limited = render(*everywhere, "watchNamespaces={a,b}")
    assert not rights(limited, name, "ClusterRole")
    roles = [o for o in limited if o["kind"] == "Role" and o["metadata"]["name"] == name]
    assert [role["metadata"]["namespace"] for role in roles] == ["a", "b"]


def test_without_a_token_no_secret_is_read_or_written(render: Render) -> None:
    for item in render():
        for rule in item.get("rules") or ():
            assert "secrets" not in rule["resources"]
