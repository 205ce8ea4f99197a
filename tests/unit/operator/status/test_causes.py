"""Each message of Kubernetes leads to the change that helps, and to no other."""

import pytest

from autoglm.operator.status.causes import creation_remedy, is_over_quota, placement_remedy

# As Kubernetes 1.36 words them.
QUOTA = (
    'pods "m" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: '
    "requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4"
)
DEMANDED = 'pods "m" is forbidden: failed quota: q: must specify limits.memory for: engine'
NO_PRIORITY = 'pods "m" is forbidden: no PriorityClass with name serving was found'
TOO_LARGE = 'pods "m" is forbidden: maximum memory usage per Container is 8Gi, but limit is 64Gi'
RATIO = (
    'pods "m" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio '
    "is 4.000000"
)
STANDARD = 'pods "m" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes'


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        (QUOTA, "raise the quota"),
        (DEMANDED, "set the requests and limits"),
        (NO_PRIORITY, "create the PriorityClass"),
        (TOO_LARGE, "LimitRange allows"),
        (RATIO, "LimitRange allows"),
        (STANDARD, "Pod Security Standard"),
        ("admission webhook denied the request: no", "correct what the message names"),
    ],
)
def test_what_prevents_a_pod_is_named(message: str, remedy: str) -> None:
    assert remedy in creation_remedy(message)


def test_a_quota_is_raised_only_where_one_is_used_up() -> None:
    for message in (DEMANDED, NO_PRIORITY, TOO_LARGE, RATIO, STANDARD):
        assert "raise the quota" not in creation_remedy(message)
        assert not is_over_quota(message)
    assert is_over_quota(QUOTA)


@pytest.mark.parametrize(
    ("message", "is_claim", "is_nodes"),
    [
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", False, True),
        ('0/3 nodes are available: persistentvolumeclaim "w" not found.', True, False),
        ("0/3 nodes: pod has unbound immediate PersistentVolumeClaims.", True, False),
        ("0/3 nodes: 3 node(s) had volume node affinity conflict.", True, False),
        ("0/1 nodes: didn't find available persistent volumes to bind.", True, False),
        ("0/2 nodes: 1 Insufficient cpu, 1 node(s) had volume node affinity conflict.", True, True),
    ],
)
def test_a_claim_is_not_mended_by_nodes(message: str, is_claim: bool, is_nodes: bool) -> None:
    remedy = placement_remedy(message)
    assert ("kubectl describe pvc" in remedy) is is_claim
    assert ("add nodes" in remedy) is is_nodes
