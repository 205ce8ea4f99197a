"""A real API server takes what chart and kustomize render, as it is; Helm installs and uninstalls.

Objects of the Prometheus operator are left out: its definitions are not on this API server.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.programs import program
from tests.support.processes import eventually

Object = dict[str, Any]
Helm = Callable[..., str]
ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/open-autoglm"
CRDS = ROOT / "deploy/crds"
OVERLAYS = sorted(path.name for path in (ROOT / "deploy/kustomize/overlays").iterdir())
FOREIGN = ("monitoring.coreos.com/v1",)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
OWN_KINDS = (
    "deployments,services,serviceaccounts,configmaps,horizontalpodautoscalers,networkpolicies,"
    "poddisruptionbudgets,roles,rolebindings,clusterroles,clusterrolebindings,autoglmprofiles"
)


@pytest.fixture(scope="module")
def system(control_plane: ControlPlane) -> str:
    """The namespace that kustomize installs into. It stays: other tests may use it as well."""
    name = "autoglm-system"
    labelled = {"name": name, "labels": RESTRICTED}
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": labelled})
    account = ("serviceaccount", "default", "-n", name, "--ignore-not-found", "-o", "name")
    eventually(lambda: bool(control_plane.kubectl("get", *account)), what=f"accounts in {name}")
    return name


@pytest.fixture
def helm(control_plane: ControlPlane, namespace: str) -> Helm:
    """Runs Helm in this test's namespace, where only restricted pods may run."""
    labels = [f"{key}={value}" for key, value in RESTRICTED.items()]
    control_plane.kubectl("label", "namespace", namespace, *labels)

    def run(*arguments: str) -> str:
        where = (f"--kubeconfig={control_plane.kubeconfig}", f"--namespace={namespace}")
        command = [program("helm"), *where, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def undefined(control_plane: ControlPlane) -> Iterator[None]:
    """The API server knows none of the kinds; the ring gets them back afterwards."""
    control_plane.kubectl("delete", "-k", str(CRDS), "--ignore-not-found")
    yield
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CRDS))
    names = [f"crd/{path.stem.partition('_')[2]}.autoglm.io" for path in CRDS.glob("autoglm.io_*")]
    control_plane.kubectl("wait", "--for=condition=Established", *names)


@pytest.fixture
def values(control_plane: ControlPlane) -> tuple[str, ...]:
    """The ring shares the definitions of the kinds."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CRDS))
    return ("--set=crds.install=false",)


def documents(text: str) -> list[Object]:
    found = [document for document in yaml.safe_load_all(text) if document]
    return [document for document in found if document["apiVersion"] not in FOREIGN]


def tried(control_plane: ControlPlane, *objects: Object) -> list[Object]:
    """What the API server would keep."""
    how = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    output = control_plane.kubectl(
        *("apply", *how, "-o", "json", "-f", "-"), text=json.dumps(listed)
    )
    kept = json.loads(output)
    # One object comes without a list around it.
    found: list[Object] = kept["items"] if kept["kind"] == "List" else [kept]
    return found


def differences(control_plane: ControlPlane, objects: list[Object]) -> list[str]:
    """Fields that the API server would keep otherwise than they were sent."""
    return [
        f"{document['kind']} {difference}"
        for document, kept in zip(objects, tried(control_plane, *objects), strict=True)
        for difference in rewritten("", document, kept)
    ]


def rewritten(path: str, sent: Any, kept: Any) -> Iterator[str]:
    """Fields that come back otherwise than they were sent; what was added is not."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            yield from rewritten(f"{path}.{key}", value, kept.get(key))
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for index, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from rewritten(f"{path}[{index}]", one, other)
    elif sent != kept:
        yield f"{path}: {sent!r} became {kept!r}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_server_takes_every_object_of_kustomize_as_it_is(
    control_plane: ControlPlane, system: str, overlay: str
) -> None:
    rendered = control_plane.kubectl("kustomize", str(ROOT / "deploy/kustomize/overlays" / overlay))
    assert differences(control_plane, documents(rendered)) == []


@pytest.mark.parametrize("values", sorted(path.name for path in CHART.glob("values*.yaml")))
def test_the_api_server_takes_every_object_of_the_chart_as_it_is(
    control_plane: ControlPlane, system: str, values: str
) -> None:
    # Profiles are of a kind that it has to know.
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CRDS))
    command = [program("helm"), "template", "open-autoglm", str(CHART), "--namespace", system]
    rendered = subprocess.run(
        [*command, "--values", str(CHART / values)], capture_output=True, text=True, check=True
    ).stdout
    assert differences(control_plane, documents(rendered)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_shows_no_difference_afterwards(
    control_plane: ControlPlane, system: str, overlay: str
) -> None:
    """As Argo CD compares: also once controllers have written their part."""
    rendered = control_plane.kubectl("kustomize", str(ROOT / "deploy/kustomize/overlays" / overlay))
    listed = {"apiVersion": "v1", "kind": "List", "items": documents(rendered)}
    how = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller", "-f", "-")
    control_plane.kubectl("apply", *how, text=json.dumps(listed))
    control_plane.kubectl(
        *("wait", "deployments", "--all", "-n", system, "--for=condition=Available"),
        "--timeout=60s",
    )

    # Fails, with the difference, where there is one.
    control_plane.kubectl("diff", *how, text=json.dumps(listed))

    kept = ("Namespace", "CustomResourceDefinition")
    listed["items"] = [d for d in documents(rendered) if d["kind"] not in kept]
    control_plane.kubectl("delete", "--wait=false", "-f", "-", text=json.dumps(listed))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_admitted_where_the_restricted_standard_is_enforced(
    control_plane: ControlPlane, system: str, overlay: str
) -> None:
    rendered = control_plane.kubectl("kustomize", str(ROOT / "deploy/kustomize/overlays" / overlay))
    all_documents = documents(rendered)
    control_plane.apply(*(d for d in all_documents if d["kind"] == "ServiceAccount"))
    for deployment in (d for d in all_documents if d["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        metadata = {**template["metadata"], "name": "one", "namespace": system}
        pod = {**template, "apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        (kept,) = tried(control_plane, pod)
        assert kept["metadata"]["name"] == "one"


def test_the_pod_of_helm_test_is_admitted_there_too(
    control_plane: ControlPlane, system: str
) -> None:
    command = [program("helm"), "template", "tried", str(CHART), "--namespace", system]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (pod,) = [d for d in documents(rendered) if d["kind"] == "Pod"]
    assert differences(control_plane, [pod]) == []


def test_an_upgrade_to_the_same_changes_nothing(
    control_plane: ControlPlane, namespace: str, helm: Helm, values: tuple[str, ...]
) -> None:
    helm("install", "same", str(CHART), *values)
    before = generations(control_plane, namespace)
    helm("upgrade", "same", str(CHART), *values)
    assert generations(control_plane, namespace) == before
    helm("uninstall", "same", "--wait")


def generations(control_plane: ControlPlane, namespace: str) -> dict[str, int]:
    items = control_plane.get("deployments", "-n", namespace)["items"]
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in items}


def test_profiles_are_the_releases_own_from_the_first_installation(
    control_plane: ControlPlane, undefined: None, helm: Helm
) -> None:
    """On an API server that has no definition of theirs before."""
    chart = (str(CHART), "--set=crds.keep=false")
    helm("install", "first", *chart)
    listed = ("get", "autoglmprofiles", "-o", "name")
    assert "autoglmprofile.autoglm.io/nvidia-l4" in control_plane.kubectl(*listed)

    helm("upgrade", "first", *chart, "--set=profiles.items.nvidia-l4=null")
    assert "cpu" in control_plane.kubectl(*listed)
    helm("upgrade", "first", *chart, "--set=profiles.items.cpu=null")
    assert "cpu" not in control_plane.kubectl(*listed)
    helm("uninstall", "first", "--wait")


def test_installed_it_runs_and_uninstalled_it_leaves_nothing(
    control_plane: ControlPlane, namespace: str, helm: Helm, values: tuple[str, ...]
) -> None:
    mine = ("-l", "app.kubernetes.io/instance=runs", "-o", "name")
    helm("install", "runs", str(CHART), *values, "--wait", "--timeout=60s")
    assert "deployment.apps/runs-gateway" in control_plane.kubectl(
        "get", OWN_KINDS, "-n", namespace, *mine
    )
    helm("uninstall", "runs", "--wait", "--timeout=60s")
    assert control_plane.kubectl("get", OWN_KINDS, "-n", namespace, *mine).strip() == ""


@pytest.mark.parametrize(
    ("component", "verb", "resource", "is_allowed"),
    [
        ("gateway", "watch", "autoglmdeployments.autoglm.io", True),
        ("gateway", "watch", "endpointslices.discovery.k8s.io", True),
        ("gateway", "patch", "autoglmdeployments.autoglm.io", False),
        ("gateway", "list", "secrets", False),
        ("gateway", "list", "pods", False),
        ("operator", "patch", "autoglmdeployments.autoglm.io/status", True),
        ("operator", "patch", "autoglmdeployments.autoglm.io", False),
        ("operator", "watch", "autoglmprofiles.autoglm.io", True),
        ("operator", "patch", "autoglmprofiles.autoglm.io", False),
        ("operator", "patch", "deployments.apps", True),
        ("operator", "get", "secrets", False),
        ("operator", "create", "pods", False),
        ("operator", "create", "roles.rbac.authorization.k8s.io", False),
    ],
)
def test_rights_in_a_named_namespace_are_what_is_needed(
    control_plane: ControlPlane,
    granted: str,
    component: str,
    verb: str,
    resource: str,
    is_allowed: bool,
) -> None:
    name, _, subresource = resource.partition("/")
    account = f"--as=system:serviceaccount:{granted}:rights-{component}"
    more = [f"--subresource={subresource}"] if subresource else []
    # Ends with 1 for no.
    says = ("auth", "can-i", verb, name, *more, "-n", granted, account)
    command = [program("kubectl"), f"--kubeconfig={control_plane.kubeconfig}", *says]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == ("yes" if is_allowed else "no")


@pytest.fixture(scope="module")
def granted(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace with the rights of the chart that watches this namespace only."""
    name = "autoglm-rights"
    metadata = {"name": name}
    control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CRDS))
    where = ("--namespace", name, "--set", f"watchNamespaces={{{name}}}")
    command = [program("helm"), "template", "rights", str(CHART), *where]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    control_plane.apply(*(d for d in documents(rendered) if d["kind"] in kinds))
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
    for kind in ("clusterrolebinding", "clusterrole"):
        control_plane.kubectl("delete", kind, "rights-operator-profiles")
