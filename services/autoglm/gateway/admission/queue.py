"""The admission queue of one model: which requests proceed, wait or are rejected. Pure.

Events with their time go in (`arrive`, `leave`, `resize`, `expire`), verdicts come out;
`admission` applies them. No clock, no await, no lock: the state is consistent between two events.
A request waits here rather than in a pod, where it could be neither reordered nor rejected.

The order: the smallest priority number first; within a priority the tenant that has been served
least for its weight (`fairness`); within a tenant first come, first served. One admission in ten
goes to the request that has waited longest, once it has waited over the ageing time, so that no
request starves. A request that does not fit is not overtaken, except by tenants with few requests:
some slots are reserved for those (`fairness`).

The queue is bounded in requests and bytes. When it is full, a new request displaces the newest
request of a lower priority, or of a tenant that fills more of the queue than the new request's own
(longest-queue drop: McKenney, "Stochastic Fairness Queueing", 1990); otherwise it is rejected. So a
flood displaces itself, and a tenant with few requests always finds room.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import msgspec

from autoglm.common.errors import AutoGLMError, DeadlineExceeded, NoReadyEndpoint, QueueFull
from autoglm.gateway.admission.capacity import Capacity, Pace
from autoglm.gateway.admission.fairness import Counters, Reserve
from autoglm.gateway.admission.lane import Lane, State, Waiter

# Priorities are clamped to this magnitude, which bounds the number of lanes.
MOST_PRIORITY = 15
# One admission in so many goes to the request that has waited longest, after the ageing time.
_AGED_TURN = 10
# Retry-After, in seconds.
_SOONEST, _LATEST = 1.0, 60.0
_SPARE = 64


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one model's queue."""

    requests: int = 1024
    size: int = 128 * 1024 * 1024
    """The most bytes of waiting bodies."""
    wait_seconds: float = 60.0
    """The longest wait; then a request is rejected."""
    ageing_seconds: float = 10.0


class Verdict(msgspec.Struct, frozen=True):
    """The decision on one request; `error` is None if it is admitted."""

    waiter: Waiter
    error: AutoGLMError | None = None


class Queue:
    """The queue of one model. It has no capacity until `resize`."""

    def __init__(self, model: str, bounds: Bounds = Bounds()) -> None:
        self._model = model
        self.bounds = bounds
        self.capacity = Capacity(0)
        self.admitted = 0
        self.tokens = 0.0
        """The estimated tokens of all admitted requests."""
        self.waiting = 0
        self.waiting_bytes = 0
        self.reserved = 0
        """Slots that are reserved for tenants with few requests, as of the last event."""
        self.is_token_bound = False
        """Whether the next request waits for tokens rather than for a slot."""
        self.pace = Pace()
        self._lanes: dict[int, Lane] = {}
        self._counters = Counters(self._waits)
        self._reserve = Reserve()
        self._ends: list[tuple[float, int, Waiter]] = []
        self._order = itertools.count()
        self._since_aged = 0
        self._lights: dict[Waiter, None] = {}
        """Waiting requests whose tenant had few requests when they arrived, oldest first."""

    def arrive(self, waiter: Waiter, now: float) -> list[Verdict]:
        """Add a new request. It waits if no verdict is about it."""
        tenant, size = waiter.tenant, self.capacity.reserved
        is_light = not self._waits(tenant) and self._reserve.request(tenant, size, now)
        # A request for a reserved slot precedes those that wait, unless one has a higher priority.
        is_next = not self.waiting or (is_light and _lane_of(waiter) <= min(self._lanes))
        if is_next and self._may_go(waiter, now):
            self._enter(waiter)
            return [self._admit(waiter, now)]
        verdicts: list[Verdict] = []
        error = self._hopeless(waiter, now)
        if error is None and self._is_over(waiter):
            error = self._displace(waiter, now, verdicts)
        if error is not None:
            return [*verdicts, self._reject(waiter, error, now)]
        self._enqueue(waiter, now)
        if is_light:
            self._lights[waiter] = None
        return verdicts + self._assign(now)

    def leave(self, waiter: Waiter, now: float, used: float | None = None) -> list[Verdict]:
        """Remove a request that has ended or whose client has left; idempotent.

        `used` is the number of tokens it used, if known.
        """
        state = waiter.state
        if state is State.ADMITTED:
            self._reserve.give_back(waiter.tenant)
            self.admitted -= 1
            self.tokens = self.tokens - waiter.tokens if self.admitted else 0.0
            self.pace.released(now - waiter.since, waiter.tokens, now)
            if used is not None:
                self._counters.correct(waiter.tenant, (used - waiter.tokens) / waiter.weight)
                for lane in self._lanes.values():
                    lane.touch(waiter.tenant)
        elif state is State.WAITING:
            self._dequeue(waiter, State.GONE, now)
        waiter.state = State.GONE
        return self._assign(now)

    def resize(self, capacity: Capacity, now: float) -> list[Verdict]:
        """Set the capacity. Admitted requests stay admitted."""
        self.capacity = capacity
        return self._assign(now)

    def expire(self, now: float) -> list[Verdict]:
        """Reject requests whose deadline or longest wait is over."""
        verdicts = []
        while self._ends and self._ends[0][0] <= now:
            _, _, waiter = heapq.heappop(self._ends)
            if waiter.state is State.WAITING:
                waited = now - waiter.since
                self._dequeue(waiter, State.GONE, now)
                verdicts.append(Verdict(waiter, self._overdue(waiter, waited, now)))
        return verdicts + self._assign(now)

    def reject_all(self, error: AutoGLMError, now: float) -> list[Verdict]:
        """Reject all waiting requests: the model or the process goes away."""
        verdicts = []
        while self.waiting:
            waiter = self._lanes[min(self._lanes)].oldest
            self._dequeue(waiter, State.GONE, now)
            verdicts.append(Verdict(waiter, error))
        return verdicts

    def retry_after(self) -> float:
        """Return the seconds until all waiting requests will be admitted, within bounds."""
        wait = self._wait(self.waiting)
        return min(max(wait, _SOONEST), _LATEST) if wait is not None else _SOONEST

    # Decisions.

    def _assign(self, now: float) -> list[Verdict]:
        """Admit the requests that fit, in order."""
        verdicts = []
        self.is_token_bound = False
        self.reserved = self.capacity.reserved if self._reserve.is_wanted(now) else 0
        while self.waiting and self.admitted < self.capacity.requests:
            waiter, is_aged = self._next(now)
            if not self._may_go(waiter, now):
                # The reserved slots are for one of these.
                light = self._next_light(now)
                if light is None or not self._may_go(light, now):
                    self.is_token_bound = self.admitted < self._room(waiter, now).requests
                    break
                waiter, is_aged = light, False
            self._since_aged = 0 if is_aged else self._since_aged + 1
            self._dequeue(waiter, State.NEW, now)
            if waiter.deadline - now < self.pace.hold(waiter.tokens):
                verdicts.append(self._reject(waiter, self._too_late(waiter, now), now))
            else:
                verdicts.append(self._admit(waiter, now))
        return verdicts

    def _next(self, now: float) -> tuple[Waiter, bool]:
        """Return the next request and whether its age made it the next. Changes nothing."""
        if self._since_aged + 1 >= _AGED_TURN:
            oldest = min(
                (lane.oldest for lane in self._lanes.values()), key=lambda waiter: waiter.since
            )
            if now - oldest.since > self.bounds.ageing_seconds:
                return oldest, True
        return self._lanes[min(self._lanes)].next(), False

    def _next_light(self, now: float) -> Waiter | None:
        """Return the first request for a reserved slot, unless a higher priority waits."""
        for waiter in tuple(self._lights):
            if self._room(waiter, now).requests < self.capacity.requests:
                # Its tenant holds more slots by now.
                del self._lights[waiter]
            elif _lane_of(waiter) <= min(self._lanes):
                return waiter
        return None

    def _may_go(self, waiter: Waiter, now: float) -> bool:
        """Return whether a slot and its tokens are free; one larger than the cache runs alone."""
        room = self._room(waiter, now)
        if self.admitted >= room.requests:
            return False
        return self.tokens + waiter.tokens <= room.tokens or not self.admitted

    def _room(self, waiter: Waiter, now: float) -> Capacity:
        """Return the capacity less the slots that are reserved for other tenants."""
        if not self._reserve.is_wanted(now):
            return self.capacity
        withheld = self._reserve.withheld_from(waiter.tenant, self.capacity.reserved)
        return self.capacity.without(withheld)

    def _admit(self, waiter: Waiter, now: float) -> Verdict:
        self._counters.charge(waiter.tenant, waiter.tokens / waiter.weight)
        self._reserve.take(waiter.tenant)
        self.admitted += 1
        self.tokens += waiter.tokens
        waiter.state, waiter.since = State.ADMITTED, now
        return Verdict(waiter)

    def _reject(self, waiter: Waiter, error: AutoGLMError, now: float) -> Verdict:
        waiter.state, waiter.since = State.GONE, now
        return Verdict(waiter, error)

    def _enter(self, waiter: Waiter) -> None:
        """Start a tenant without waiting requests at the least counter of the waiting tenants."""
        if not self.waiting:
            self._counters.enter(waiter.tenant, None)
        elif not self._waits(waiter.tenant):
            least = min(lane.least() for lane in self._lanes.values())
            self._counters.enter(waiter.tenant, least)

    def _enqueue(self, waiter: Waiter, now: float) -> None:
        self._enter(waiter)
        waiter.state, waiter.since = State.WAITING, now
        lane = self._lanes.get(_lane_of(waiter))
        if lane is None:
            lane = self._lanes[_lane_of(waiter)] = Lane(self._counters.of, self._share)
        lane.add(waiter)
        if len(self._ends) >= 2 * self.waiting + _SPARE:
            self._ends = [end for end in self._ends if end[2].state is State.WAITING]
            heapq.heapify(self._ends)
        ends = min(waiter.deadline, now + self.bounds.wait_seconds)
        heapq.heappush(self._ends, (ends, next(self._order), waiter))
        self.waiting += 1
        self.waiting_bytes += waiter.size
        if self.waiting == 1:
            self.pace.busy(True, now)

    def _dequeue(self, waiter: Waiter, state: State, now: float) -> None:
        number = _lane_of(waiter)
        self._lanes[number].remove(waiter)
        self._lights.pop(waiter, None)
        if not self._lanes[number]:
            del self._lanes[number]
        waiter.state = state
        self.waiting -= 1
        self.waiting_bytes -= waiter.size
        if not self.waiting:
            self.pace.busy(False, now)

    def _displace(self, waiter: Waiter, now: float, verdicts: list[Verdict]) -> AutoGLMError | None:
        """Displace another request to make room; return the error if none is displaced."""
        full = self._full()
        if not self._lanes:
            return full
        worst = max(self._lanes)
        lane, victim = self._lanes[worst], self._lanes[worst].last_of_largest()
        gives_way = _lane_of(waiter) < worst or (
            _lane_of(waiter) == worst
            and lane.share(victim.tenant) > lane.share(waiter.tenant, extra=waiter)
        )
        if not gives_way or self._is_over(waiter, without=victim):
            return full
        self._dequeue(victim, State.GONE, now)
        verdicts.append(Verdict(victim, full))
        return None

    def _is_over(self, waiter: Waiter, without: Waiter | None = None) -> bool:
        count = self.waiting + 1 - (without is not None)
        size = self.waiting_bytes + waiter.size - (without.size if without else 0)
        return count > self.bounds.requests or size > self.bounds.size

    def _waits(self, tenant: str) -> bool:
        return bool(self.waiting) and any(tenant in lane for lane in self._lanes.values())

    def _share(self, count: int, size: int) -> float:
        return max(count / self.bounds.requests, size / self.bounds.size)

    def _wait(self, ahead: int) -> float | None:
        """Return the seconds until so many requests are admitted; None if the pace is unknown."""
        rate = self.pace.rate(self.admitted)
        return None if rate is None else ahead / rate

    def _hopeless(self, waiter: Waiter, now: float) -> AutoGLMError | None:
        """Return the error if the request would be admitted too late for its deadline."""
        number = _lane_of(waiter)
        ahead = sum(len(lane) for n, lane in self._lanes.items() if n < number)
        if lane := self._lanes.get(number):
            ahead += lane.ahead_of(waiter.tenant)
        wait = self._wait(ahead + 1)
        if wait is None or now + wait + self.pace.hold(waiter.tokens) <= waiter.deadline:
            return None
        return QueueFull(
            f"the queue of {self._model!r} has {ahead} requests before this one, about "
            f"{min(wait, 9999):.0f} s, and its deadline is in {waiter.deadline - now:.1f} s; "
            "give it longer, or try again later",
            retry_after=self.retry_after(),
        )

    def _full(self) -> QueueFull:
        return QueueFull(
            f"the queue of {self._model!r} is full: {self.waiting} requests of "
            f"{self.bounds.requests}, {self.waiting_bytes} bytes of {self.bounds.size} wait; "
            "try again later",
            retry_after=self.retry_after(),
        )

    def _too_late(self, waiter: Waiter, now: float) -> QueueFull:
        return QueueFull(
            f"the request reached its turn {max(0.0, waiter.deadline - now):.1f} s before its "
            f"deadline, too late for {self._model!r} to respond; give it longer, or try again "
            "later",
            retry_after=self.retry_after(),
        )

    def _overdue(self, waiter: Waiter, waited: float, now: float) -> AutoGLMError:
        if waiter.deadline <= now:
            return DeadlineExceeded(
                f"the deadline passed after {waited:.1f} s in the queue of {self._model!r}"
            )
        if not self.capacity.requests:
            return NoReadyEndpoint(
                f"no endpoint of {self._model!r} has become ready in {waited:.0f} s; "
                "try again later",
                retry_after=_SOONEST,
            )
        return QueueFull(
            f"the request waited {waited:.0f} s in the queue of {self._model!r}, the limit; "
            "try again later",
            retry_after=self.retry_after(),
        )


def _lane_of(waiter: Waiter) -> int:
    return min(max(waiter.priority, -MOST_PRIORITY), MOST_PRIORITY)
