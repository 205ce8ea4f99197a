"""The ValidatingAdmissionPolicy: rejects invalid specs that the CRD's rules cannot check. Pure.

A CRD's rules can read neither free-form values (spec.template, spec.engine.args) nor settings of
the installation. The policy expresses the common rules of `template`, `restricted`, `validity` and
`api.rules` in CEL, from the same constants. It is optional: the operator validates every resource
itself, so the policy admits what it cannot evaluate (failurePolicy Ignore). Written to deploy/ by
scripts/generate_crd.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from autoglm.api import GROUP, VERSION
from autoglm.api.labels import COMPONENT, NAME, OPERATOR, PLURAL, PRODUCT
from autoglm.api.rules import ECHO_ARGS
from autoglm.api.rules.facts import engine_facts
from autoglm.api.rules.known import MOST, MOST_DEVICES
from autoglm.operator.template.restricted import HOOKS, PROBES, PROJECTED, SECCOMP, VOLUMES
from autoglm.operator.template.template import FIELDS, PROFILE, RESERVED, ROOT

Object = dict[str, Any]
_FACTS = engine_facts()
POLICY_NAME: Final = "open-autoglm-operator"
# The chart replaces it by operator.allowHostPath.
ALLOW_HOST_PATH: Final = {"name": "allowHostPath", "expression": "false"}


def _texts(values: Iterable[str]) -> str:
    return json.dumps(sorted(values))


def _most_of(name: str) -> str:
    """Return the most of a resource, by its name; names of devices have a slash."""
    most = "double(9223372036854775807)"
    for known, amount in MOST.items():
        most = f"({name} == '{known}' ? {float(amount)} : {most})"
    return f"({name}.contains('/') ? {float(MOST_DEVICES)} : {most})"


_VARIABLES: Final = (
    ALLOW_HOST_PATH,
    {"name": "template", "expression": "object.spec.?template.orValue({})"},
    {"name": "pod", "expression": "variables.template.?spec.orValue({})"},
    {"name": "metadata", "expression": "variables.template.?metadata.orValue({})"},
    {
        "name": "containers",
        "expression": "variables.pod.?containers.orValue([]) + "
        "variables.pod.?initContainers.orValue([])",
    },
    {"name": "volumes", "expression": "variables.pod.?volumes.orValue([])"},
    {
        "name": "securities",
        "expression": "[variables.pod.?securityContext.orValue({})] + "
        "variables.containers.map(c, c.?securityContext.orValue({}))",
    },
    {
        "name": "handlers",
        "expression": "variables.containers.map(c, "
        + " + ".join(
            [f"[c.?{probe}.orValue({{}})]" for probe in PROBES]
            + [f"[c.?lifecycle.?{hook}.orValue({{}})]" for hook in HOOKS]
        )
        + ").map(hs, hs.map(h, [h.?httpGet.?host.orValue(''), h.?tcpSocket.?host.orValue('')]))",
    },
    {
        "name": "uris",
        "expression": "[object.spec.model.?uri.orValue(''), "
        "object.spec.model.?tokenizer.orValue('')] + "
        "object.spec.model.?adapters.orValue([]).map(a, a.uri)",
    },
    {
        "name": "devices",
        "expression": " * ".join(
            f"object.spec.engine.?parallelism.?{kind}.orValue(1)"
            for kind in ("tensor", "pipeline", "data")
        ),
    },
)


def _unknown(where: str, value: str, allowed: Iterable[str], why: str) -> Object:
    """Return a rule: every key of a mapping is one of `allowed`."""
    unknown = f"{value}.filter(k, !(k in {_texts(allowed)}))"
    names = ", ".join(sorted(allowed))
    message = f"{why}; remove it. Allowed: {names}"
    quoted = "'" + f": {message}".replace("\\", "\\\\").replace("'", "\\'") + "'"
    return {
        "expression": f"{unknown}.size() == 0",
        "messageExpression": f"'{where}.' + {unknown}.join(', ') + {quoted}",
        "message": f"{where}: {message}",
    }


def _rule(expression: str, message: str) -> Object:
    return {"expression": expression, "message": message}


def _template_rules() -> list[Object]:
    pod, volumes = f"{ROOT}.spec", "variables.volumes"
    reserved, profile = (
        " || ".join(f"k.startsWith('{prefix}')" for prefix in prefixes)
        for prefixes in (RESERVED, PROFILE)
    )
    return [
        _unknown(ROOT, "variables.template", FIELDS[ROOT], "a template may not set it"),
        _unknown(
            f"{ROOT}.metadata",
            "variables.metadata",
            FIELDS[f"{ROOT}.metadata"],
            "a template may not set it",
        ),
        _unknown(
            pod,
            "variables.pod",
            FIELDS[pod],
            "a template may not set it: replicas have an account of their own, and share nothing "
            "with their node",
        ),
        _rule(
            "[variables.metadata.?labels.orValue({}), "
            f"variables.metadata.?annotations.orValue({{}})].all(m, !m.exists(k, {reserved}))",
            f"{ROOT}.metadata: labels and annotations of {' and '.join(RESERVED)} belong to the "
            "operator; use other names",
        ),
        _rule(
            f"!variables.metadata.?annotations.orValue({{}}).exists(k, {profile})",
            f"{ROOT}.metadata.annotations: remove those of {', '.join(PROFILE)}; use "
            "securityContext.appArmorProfile",
        ),
        _rule(
            f"{volumes}.all(v, v.all(k, k in {_texts(VOLUMES | {'name'})}))",
            f"{pod}.volumes: use one of {', '.join(sorted(VOLUMES))}",
        ),
        _rule(
            f"{volumes}.all(v, v.?projected.?sources.orValue([])"
            f".all(s, s.all(k, k in {_texts(PROJECTED)})))",
            f"{pod}.volumes: replicas get no credential of the Kubernetes API; a projected volume "
            f"may have {', '.join(sorted(PROJECTED))}",
        ),
        _rule(
            "variables.containers.all(c, c.?name.orValue('') == 'engine' || has(c.image))",
            f"{pod}.containers: image is required for a container of your own; the engine's is "
            "called engine",
        ),
    ]


def _profile_rules() -> list[Object]:
    pod = f"{ROOT}.spec"
    profile = f"{pod} breaks the restricted profile"

    def each(test: str, message: str) -> Object:
        return _rule(f"variables.securities.all(s, {test})", f"{profile}: {message}")

    return [
        each("s.?privileged.orValue(false) != true", "privileged must be false; remove it"),
        each(
            "s.?allowPrivilegeEscalation.orValue(false) != true",
            "allowPrivilegeEscalation must be false; remove it",
        ),
        each("s.?runAsNonRoot.orValue(true) == true", "runAsNonRoot must be true; remove it"),
        each("s.?runAsUser.orValue(1) != 0", "runAsUser must not be root; remove it"),
        each(
            "s.?capabilities.?add.orValue([]).all(a, a == 'NET_BIND_SERVICE')",
            "no capability may be added but NET_BIND_SERVICE; remove it",
        ),
        each(
            "s.?procMount.orValue('Default') == 'Default'", "procMount must be Default; remove it"
        ),
        each(
            f"s.?seccompProfile.?type.orValue('{SECCOMP[0]}') in {_texts(SECCOMP)}",
            f"seccompProfile.type must be one of {', '.join(SECCOMP)}; remove it",
        ),
        each("s.?sysctls.orValue([]).size() == 0", "sysctls are not allowed; remove them"),
        _rule(
            "variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))",
            f"{profile}: replicas take no port of their node; remove hostPort and use the Service",
        ),
        _rule(
            "variables.handlers.all(hs, hs.all(h, h.all(host, host == '')))",
            f"{profile}: host of a probe or a lifecycle hook must not be set; remove it",
        ),
    ]


def _spec_rules() -> list[Object]:
    gpus = (
        "[object.spec.?resources.?limits.orValue({}), "
        "object.spec.?resources.?requests.orValue({})]"
        ".all(r, r.all(k, !k.endsWith('/gpu') || "
        "quantity(string(r[k])).asApproximateFloat() == 0.0 || "
        "quantity(string(r[k])).asApproximateFloat() >= double(variables.devices)))"
    )
    return [
        _rule(
            "variables.uris.all(u, !u.startsWith('./') && !u.startsWith('../') && "
            "!u.startsWith('~'))",
            "spec.model: uri, tokenizer and the adapters' uri must not be relative to a file, "
            "which a cluster does not have; use a hub name, or an absolute path on a volume that "
            "spec.template mounts",
        ),
        _rule(
            "object.spec.model.?cache.?type.orValue('') != 'hostPath' || variables.allowHostPath",
            "spec.model.cache.type: the operator was installed without --allow-host-path, since it "
            "opens the node's files to every user who may write this resource; use pvc",
        ),
        _rule(
            gpus,
            "spec.resources: fewer GPUs than spec.engine.parallelism needs for each replica; give "
            "as many, or lower the parallelism",
        ),
        _rule(
            "object.spec.engine.?type.orValue('vllm') != 'vllm' || "
            "has(object.spec.engine.image) || has(object.spec.profile) || "
            "object.spec.engine.?args.orValue({})"
            f".all(k, k.replace('-', '_') in {_texts(_FACTS.arguments)})",
            f"spec.engine.args: vLLM {_FACTS.version} has no such argument; `autoglm validate` "
            "names the closest",
        ),
        _rule(
            "[object.spec.?resources.?limits.orValue({}), "
            "object.spec.?resources.?requests.orValue({})].all(r, r.all(k, "
            f"quantity(string(r[k])).asApproximateFloat() <= {_most_of('k')}))",
            "spec.resources: more than a node has; give at most 10000 of cpu, 1Pi of memory and of "
            "ephemeral-storage, and 1024 of a device",
        ),
        _rule(
            "object.spec.engine.?type.orValue('') != 'echo' || object.spec.engine.?args.orValue({})"
            f".all(k, k.replace('-', '_') in {_texts(ECHO_ARGS)})",
            "spec.engine.args: the echo engine has no such argument; it has "
            f"{', '.join(sorted(ECHO_ARGS))}",
        ),
    ]


def admission_policy() -> Object:
    """Return the policy; the chart changes its name."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY_NAME, "labels": {NAME: PRODUCT, COMPONENT: OPERATOR}},
        "spec": {
            "failurePolicy": "Ignore",
            "matchConstraints": {
                "resourceRules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": [VERSION],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [PLURAL],
                    }
                ]
            },
            # An existing invalid resource can be labelled, annotated and deleted.
            "matchConditions": [
                {
                    "name": "spec-changes",
                    "expression": "oldObject == null || object.spec != oldObject.spec",
                }
            ],
            "variables": [dict(variable) for variable in _VARIABLES],
            "validations": [*_template_rules(), *_profile_rules(), *_spec_rules()],
        },
    }


def binding() -> Object:
    """Return the binding, which denies what the policy rejects."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY_NAME, "labels": {NAME: PRODUCT, COMPONENT: OPERATOR}},
        "spec": {"policyName": POLICY_NAME, "validationActions": ["Deny"]},
    }
