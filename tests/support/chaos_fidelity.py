"""Judges responses under disturbance by measurements on an undisturbed pod."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from tests.support.chaos_ways import MODEL, SECONDS, Way, post
from tests.support.fidelity import (
    Fork,
    Measured,
    Said,
    Verdict,
    first_forks,
    is_tie,
    penalty_threshold,
)
from tests.support.processes import Process

from autoglm import v1
from autoglm.v1.inference_pb2_grpc import InferenceStub

# Batches of these sizes, since rounding depends on what else is in the batch.
_BATCHES = (1, 2, 4, 8)
_LIKELIEST = 20


@dataclass
class Fidelity:
    """Collects responses while something is disturbed; they are judged once it is quiet again."""

    equal: int = 0
    doubtful: list[tuple[Way, Said, Said]] = field(default_factory=list)
    different: list[tuple[Way, Said, Said]] = field(default_factory=list)
    """Of the doubtful, those that `judge` found to be no ties."""

    def note(self, way: Way, expected: Said, seen: Said) -> None:
        if seen == expected:
            self.equal += 1
        else:
            self.doubtful.append((way, expected, seen))

    def judge(self, pod: Process) -> Counter[Verdict]:
        """Of all responses that were noted, by an undisturbed pod."""
        verdicts = [verdict(pod, *one) for one in self.doubtful]
        judged = zip(self.doubtful, verdicts, strict=True)
        self.different = [one for one, found in judged if found is Verdict.DIFFERENT]
        return Counter({Verdict.EQUAL: self.equal}) + Counter(verdicts)


def verdict(pod: Process, way: Way, expected: Said, seen: Said) -> Verdict:
    forks = first_forks(expected, seen)
    if forks is None:
        return Verdict.DIFFERENT
    if all(is_tie(measure(pod, way, fork), threshold(way, fork)) for fork in forks):
        return Verdict.TIED if forks else Verdict.EQUAL
    return Verdict.DIFFERENT


def threshold(way: Way, fork: Fork) -> float:
    """The gap of log-probabilities at which this request's sampling turns to the other token."""
    turns = penalty_threshold(fork, way.params.frequency_penalty)
    if way.params.temperature > 0:
        turns += way.params.temperature * seeded_gap(way.params.seed + fork.choice, fork)
    return turns


def seeded_gap(seed: int, fork: Fork) -> float:
    """The gap of logits at which vLLM's CPU sampler turns, from the noise that the seed draws."""
    import torch
    from vllm.platforms import current_platform

    # Registers the sampler's operator, in the build for the instructions that this CPU has.
    current_platform.import_kernels()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(len(fork.prefix) + 1):
        drawn = torch.randint(0, 2**31, (1,), generator=generator, dtype=torch.long)
    logits = torch.full((1, 1 + max(fork.expected, fork.seen)), float("-inf"))
    low, high = -64.0, 64.0
    while high - low > 1e-4:
        logits[0, fork.seen], logits[0, fork.expected] = 0.0, (low + high) / 2
        taken = int(torch.ops._C.fused_gumbel_argmax(logits, drawn)[0])
        low, high = (low, (low + high) / 2) if taken == fork.expected else ((low + high) / 2, high)
    return low


def measure(pod: Process, way: Way, fork: Fork) -> list[Measured]:
    """Both candidates' log-probabilities, by a pod that prefills prompt, prefix and candidate."""
    prompt = json.loads(post(pod.http_address, "/tokenize", {"model": MODEL, **way.prompt}))
    before = (*prompt["tokens"], *fork.prefix)
    measured = []
    with grpc.insecure_channel(pod.grpc_address) as channel:
        stub = InferenceStub(channel)

        def scored(candidate: int) -> Any:
            return _scored(stub, (*before, candidate))

        for size in _BATCHES:
            with ThreadPoolExecutor(2 * size) as pool:
                pairs = list(pool.map(scored, (fork.expected, fork.seen) * size))
            measured += [
                Measured(ours.logprob, other.logprob, [t.logprob for t in ours.top_logprobs])
                for ours, other in zip(pairs[::2], pairs[1::2], strict=True)
            ]
    return measured


def _scored(stub: InferenceStub, ids: Sequence[int]) -> v1.TokenLogprob:
    """The last token's log-probability."""
    params = v1.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=_LIKELIEST)
    prompt = v1.TokenIds(ids=ids)
    request = v1.GenerateRequest(model=MODEL, token_ids=prompt, sampling_params=params)
    return stub.Generate(request, timeout=SECONDS).prompt_logprobs[-1]
