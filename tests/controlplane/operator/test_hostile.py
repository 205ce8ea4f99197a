"""A real API server: resources made to do harm are refused at apply, or contained by the operator.

Contained means: `InvalidSpec` with the field and the way out, no child, and a neighbour that is
reconciled meanwhile, also by an operator that starts while the hostile resource is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.daemon import ClusterFailed
from tests.support.operating import Cluster, Running, until

from autoglm.kube.kinds import CHILDREN, EVENT, RESOURCE
from autoglm.kube.transport import Refused

Spec = dict[str, Any]
DEPLOYMENT = CHILDREN[0]
# Of shells, YAML, templates, paths, flags and terminals.
INJECTED = (
    *("$(id)", "`id`", "a;reboot", "a|b", "a b", 'a": "b', "a'b", "{{ .Values.x }}", "${HOME}"),
    *("../../etc/passwd", "/etc/passwd", "-rf", "a\nb: c", "a\x00b", "a\x1b[2J", "a\u202eb"),
)


def _model(**fields: Any) -> Spec:
    return {"model": {"uri": "a/b", **fields}, "engine": {"type": "vllm"}}


NAMES: dict[str, Callable[[str], Spec]] = {
    "spec.model.servedName": lambda text: _model(servedName=text),
    "spec.model.aliases": lambda text: _model(aliases=[text]),
    "spec.model.adapters[0].name": lambda text: _model(adapters=[{"name": text, "uri": "a/b"}]),
    "spec.model.cache.claimName": lambda text: _model(cache={"type": "pvc", "claimName": text}),
    "spec.model.quantization.method": lambda text: _model(quantization={"method": text}),
    "spec.engine.env[0].name": lambda text: {"engine": {"env": [{"name": text, "value": ""}]}},
}


def _pod(**fields: Any) -> Spec:
    return {"template": {"spec": fields}}


def _engine(**fields: Any) -> Spec:
    return _pod(containers=[{"name": "engine", **fields}])


def _security(**fields: Any) -> Spec:
    return _engine(securityContext=fields)


def _beside(field: str, **fields: Any) -> Spec:
    return _pod(**{field: [{"name": "own", "image": "own:1", **fields}]})


def _volume(**source: Any) -> Spec:
    return _pod(volumes=[{"name": "host", **source}])


# By the field that the condition must name.
PRIVILEGED: dict[str, Spec] = {
    "hostNetwork": _pod(hostNetwork=True),
    "hostPID": _pod(hostPID=True),
    "hostIPC": _pod(hostIPC=True),
    "hostUsers": _pod(hostUsers=True),
    "nodeName": _pod(nodeName="fake-0"),
    "serviceAccountName": _pod(serviceAccountName="admin"),
    "serviceAccount": _pod(serviceAccount="admin"),
    "automountServiceAccountToken": _pod(automountServiceAccountToken=True),
    "shareProcessNamespace": _pod(shareProcessNamespace=True),
    "ephemeralContainers": _pod(ephemeralContainers=[{"name": "x", "image": "x"}]),
    "volumes[name=host].hostPath": _volume(hostPath={"path": "/"}),
    "volumes[name=host].nfs": _volume(nfs={"server": "10.0.0.1", "path": "/"}),
    "securityContext.runAsUser": _pod(securityContext={"runAsUser": 0}),
    "securityContext.sysctls": _pod(securityContext={"sysctls": [{"name": "a", "value": "1"}]}),
    "securityContext.seccompProfile.type": _pod(
        securityContext={"seccompProfile": {"type": "Unconfined"}}
    ),
    "containers[name=engine].securityContext.privileged": _security(privileged=True),
    "containers[name=engine].securityContext.capabilities.add": _security(
        capabilities={"add": ["SYS_ADMIN"], "drop": ["ALL"]}
    ),
    "containers[name=engine].securityContext.capabilities.drop": _security(
        capabilities={"drop": ["NET_RAW"]}
    ),
    "containers[name=engine].securityContext.allowPrivilegeEscalation": _security(
        allowPrivilegeEscalation=True
    ),
    "containers[name=engine].securityContext.runAsNonRoot": _security(runAsNonRoot=False),
    "containers[name=engine].securityContext.procMount": _security(procMount="Unmasked"),
    "containers[name=engine].ports.hostPort": _engine(
        ports=[{"containerPort": 50051, "hostPort": 50051}]
    ),
    "containers[name=engine].readinessProbe.httpGet.host": _engine(
        readinessProbe={"httpGet": {"port": 1, "host": "169.254.169.254"}}
    ),
    "containers[name=engine].lifecycle.postStart.httpGet.host": _engine(
        lifecycle={"postStart": {"httpGet": {"port": 1, "host": "169.254.169.254"}}}
    ),
    "containers[name=own].securityContext.privileged": _beside(
        "containers", securityContext={"privileged": True}
    ),
    "initContainers[name=own].securityContext.runAsUser": _beside(
        "initContainers", securityContext={"runAsUser": 0}
    ),
}
SELECTED = {"metadata": {"labels": {"autoglm.io/deployment": "neighbour"}}}


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


BOTTOMLESS = nested(9_800)
LARGE = f'"{"x" * 1_400_000}"'
# By the field that the condition must name: what stands there, written out.
HUGE = {
    "spec.template": (f'{{"model":{{"uri":"a/b"}},"template":{BOTTOMLESS}}}', "nested deeper"),
    "spec.engine": (
        f'{{"model":{{}},"engine":{{"type":"echo","args":{{"fail":{BOTTOMLESS}}}}}}}',
        "nested deeper",
    ),
    "spec.engine.env": (
        f'{{"model":{{"uri":"a/b"}},"engine":{{"env":[{{"name":"A","value":"{"x" * 32_000}"}},'
        f'{{"name":"B","value":"{"x" * 32_000}"}},{{"name":"C","value":"{"x" * 32_000}"}}]}}}}',
        "put large content into a ConfigMap",
    ),
    "spec.engine.args": (
        f'{{"model":{{"uri":"a/b"}},"engine":{{"args":{{"x":{LARGE}}}}}}}',
        "put large content into a ConfigMap",
    ),
    "spec.template = ": (f'{{"model":{{"uri":"a/b"}},"template":{{"x":{LARGE}}}}}', ""),
}


async def refusal(cluster: Cluster, spec: Spec, name: str = "bad") -> str:
    """The API server's words; empty where it takes the resource, which is not kept."""
    metadata = {"name": name, "namespace": cluster.namespace}
    body = {
        "apiVersion": RESOURCE.api_version,
        "kind": RESOURCE.kind,
        "metadata": metadata,
        "spec": {"model": {"uri": "a/b"}} | spec,
    }
    query = (("dryRun", "All"), ("fieldValidation", "Strict"))
    try:
        await cluster.send("POST", RESOURCE.path(cluster.namespace), body, query=query)
    except Refused as error:
        return error.message
    return ""


async def raw(control_plane: ControlPlane, cluster: Cluster, name: str, spec: str) -> None:
    """Creates a resource from text that no parser of ours has to read."""
    body = (
        f'{{"apiVersion":"{RESOURCE.api_version}","kind":"{RESOURCE.kind}",'
        f'"metadata":{{"name":"{name}"}},"spec":{spec}}}'
    )
    path = RESOURCE.path(cluster.namespace)
    command = ("create", f"--raw={path}", "-f", "-")
    await asyncio.to_thread(control_plane.kubectl, *command, text=body)


async def ready(control_plane: ControlPlane, cluster: Cluster, name: str) -> str:
    """Reason and message of the condition, without reading the resource."""
    form = '{.status.conditions[?(@.type=="Ready")].reason} '
    form += '{.status.conditions[?(@.type=="Ready")].message}'
    command = ("get", "agd", name, "-n", cluster.namespace, "-o", f"jsonpath={form}")
    return await asyncio.to_thread(control_plane.kubectl, *command)


async def neighbour_is_served(cluster: Cluster, running: Running, name: str) -> None:
    began = asyncio.get_running_loop().time()
    await cluster.create(name)
    await until(lambda: cluster.is_ready(name), f"{name} ready", 30)
    assert asyncio.get_running_loop().time() - began < 20
    assert not running.task.done()


@pytest.mark.parametrize("field", NAMES)
async def test_injected_names_are_refused_at_apply(cluster: Cluster, field: str) -> None:
    refusals = {text: await refusal(cluster, NAMES[field](text)) for text in INJECTED}

    assert [text for text, message in refusals.items() if field not in message] == []
    assert "should match" in refusals["a b"]


async def test_injected_names_of_resources_are_refused_at_apply(cluster: Cluster) -> None:
    refusals = {text: await refusal(cluster, {}, text) for text in INJECTED}

    assert [text for text, message in refusals.items() if not message] == []
    assert "metadata.name" in refusals["a b"]


async def test_text_in_free_form_fields_stays_text(cluster: Cluster) -> None:
    await cluster.start()
    uri, argument = "/$(HOSTNAME)`id`;{{.x}}\"'", '$(HOSTNAME)\n- --model-path="/etc"'
    engine = {"type": "vllm", "args": {"chat_template": argument}}
    await cluster.create("glm", model={"uri": uri}, engine=engine)
    await until(lambda: cluster.is_ready("glm"), "ready")
    children = await cluster.children("glm")
    (deployment,) = (c for name, c in children.items() if name.startswith("Deployment/"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert container["command"] == ["autoglm"]
    assert f"--model-path={uri.replace('$(', '$$(')}" in container["args"]
    assert f"--engine-arg=chat_template={argument.replace('$(', '$$(')}" in container["args"]


async def test_no_template_lends_rights_of_the_operator(cluster: Cluster) -> None:
    running = await cluster.start()
    names = {field: f"bad-{number}" for number, field in enumerate(PRIVILEGED)}
    for field, name in names.items():
        await cluster.create(name, **PRIVILEGED[field])
    await cluster.create("bad-selected", template=SELECTED)
    await neighbour_is_served(cluster, running, "neighbour")

    found = {}

    async def all_are_judged() -> bool:
        for field, name in names.items():
            conditions = ((await cluster.resource(name)).get("status") or {}).get("conditions")
            if not conditions:
                return False
            found[field] = conditions[0]
        return True

    await until(all_are_judged, "every resource judged", 30)
    assert {f for f, condition in found.items() if condition["reason"] != "InvalidSpec"} == set()
    silent = {f for f, c in found.items() if f"spec.template.spec.{f}" not in c["message"]}
    assert silent == set()
    assert {f for f, c in found.items() if not _names_a_way_out(c["message"])} == set()
    children = [await cluster.children(name) for name in (*names.values(), "bad-selected")]
    assert children == [{}] * len(children)


def _names_a_way_out(message: str) -> bool:
    return any(word in message for word in ("remove it", "use ", "Allowed:"))


async def test_the_huge_and_the_bottomless_are_contained(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    first = await cluster.start()
    await cluster.create("before")
    await until(lambda: cluster.is_ready("before"), "ready")
    names = {field: f"bad-{number}" for number, field in enumerate(HUGE)}
    for field, name in names.items():
        await raw(control_plane, cluster, name, HUGE[field][0])
    await neighbour_is_served(cluster, first, "meanwhile")
    await first.stop()

    second = await cluster.start(resync_seconds=2)
    await neighbour_is_served(cluster, second, "afterwards")
    for field, name in names.items():

        async def is_reported(field: str = field, name: str = name) -> bool:
            text = await ready(control_plane, cluster, name)
            return text.startswith("InvalidSpec ") and field.strip(" =") in text

        await until(is_reported, f"{field} is invalid", 40)
        assert HUGE[field][1] in await ready(control_plane, cluster, name)
    await cluster.change("before", {"replicas": 2})
    await until(lambda: has_replicas(cluster, "before", 2), "a change carried out")
    assert not second.task.done()
    deployments = (await cluster.send("GET", DEPLOYMENT.path(cluster.namespace)))["items"]
    owners = {d["metadata"]["ownerReferences"][0]["name"] for d in deployments}
    assert owners == {"before", "meanwhile", "afterwards"}


async def has_replicas(cluster: Cluster, name: str, count: int) -> bool:
    status = (await cluster.resource(name)).get("status") or {}
    return bool(status.get("readyReplicas") == count)


async def test_a_resource_that_leaves_no_room_for_its_status_slows_no_other(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    """etcd takes it, but not with a status."""
    size = await largest(control_plane, cluster)
    await raw(control_plane, cluster, "full", filled(size))
    running = await cluster.start()
    await neighbour_is_served(cluster, running, "neighbour")
    await asyncio.sleep(5)
    tries = [r for r in running.writes if r.path.endswith("/full/status")]
    assert 1 <= len(tries) < 40
    assert await cluster.children("full") == {}
    events = (await cluster.send("GET", EVENT.path(cluster.namespace)))["items"]
    notes = [e["note"] for e in events if e["regarding"]["name"] == "full"]
    assert notes and all("put large content into a ConfigMap" in note for note in notes)


def filled(size: int) -> str:
    return f'{{"model":{{"uri":"a/b"}},"template":{{"x":"{"x" * size}"}}}}'


async def largest(control_plane: ControlPlane, cluster: Cluster) -> int:
    """Return the largest size of a template that is accepted, within a few bytes."""
    low, high = 1_400_000, 1_700_000
    while high - low > 16:
        size = (low + high) // 2
        try:
            await raw(control_plane, cluster, "full", filled(size))
        except ClusterFailed as error:
            assert "too large" in str(error)
            high = size
        else:
            low = size
            await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "full"))
    return low


async def test_what_the_api_server_can_not_keep_is_refused_with_a_reason(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    for spec in (f'{{"template":{nested(10_100)}}}', f'{{"template":{{"x":"{"x" * 4_000_000}"}}}}'):
        with pytest.raises(ClusterFailed, match=r"max depth|too large|larger than"):
            await raw(control_plane, cluster, "bad", spec)


async def test_labels_that_kubernetes_rejects_are_reported_and_harm_no_other_resource(
    cluster: Cluster,
) -> None:
    running = await cluster.start()
    labels = {"a b; rm": "$(id)", "x/y/z": "{{ }}"}
    await cluster.create("bad", template={"metadata": {"labels": labels}})
    await neighbour_is_served(cluster, running, "neighbour")

    async def is_reported() -> bool:
        status = (await cluster.resource("bad")).get("status") or {}
        ready = [c for c in status.get("conditions", ()) if c["type"] == "Ready"]
        return bool(ready) and ready[0]["reason"] == "Rejected" and "a b; rm" in ready[0]["message"]

    await until(is_reported, "the API server's words", 30)
