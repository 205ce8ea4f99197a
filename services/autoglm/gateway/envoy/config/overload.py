"""Envoy's overload manager: limits of connections and memory. Pure.

Envoy holds incomplete bodies and those kept for a retry. Close to its memory limit it resets the
streams that hold most (at least a megabyte); at the limit it rejects new requests.
"""

from __future__ import annotations

from autoglm.gateway.envoy.config.parts import TYPE, Json
from autoglm.gateway.settings import GatewaySettings

_REFRESH_INTERVAL = "0.025s"
_MONITORS = "envoy.resource_monitors"
_HEAP, _CONNECTIONS = f"{_MONITORS}.fixed_heap", f"{_MONITORS}.global_downstream_max_connections"
# Parts of the memory limit: from the first on the largest streams are reset, at the second all
# large ones; from the third on Envoy responds with 503.
_SHORT, _VERY_SHORT, _OUT = 0.6, 0.8, 0.98
# Streams that hold fewer than 2**20 bytes are not reset.
_COUNTED_POWER = 20


def overload_manager(settings: GatewaySettings) -> Json:
    """Return the configuration of the overload manager."""
    return {
        "refresh_interval": _REFRESH_INTERVAL,
        "resource_monitors": [_heap(settings.envoy_memory_bytes), _connections(settings)],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _COUNTED_POWER},
        "actions": [
            _action("reset_high_memory_stream", _between(_SHORT, _VERY_SHORT)),
            _action("shrink_heap", _from(_SHORT)),
            _action("stop_accepting_requests", _from(_OUT)),
        ],
    }


def _heap(size: int) -> Json:
    kind = f"{TYPE}.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
    return {"name": _HEAP, "typed_config": {"@type": kind, "max_heap_size_bytes": size}}


def _connections(settings: GatewaySettings) -> Json:
    """Return the limit of both listeners together; connections above it are closed."""
    kind = f"{TYPE}.extensions.resource_monitors.downstream_connections.v3"
    config = {
        "@type": f"{kind}.DownstreamConnectionsConfig",
        "max_active_downstream_connections": 2 * settings.max_connections,
    }
    return {"name": _CONNECTIONS, "typed_config": config}


def _action(name: str, trigger: Json) -> Json:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP} | trigger]}


def _from(part: float) -> Json:
    return {"threshold": {"value": part}}


def _between(begins: float, ends: float) -> Json:
    return {"scaled": {"scaling_threshold": begins, "saturation_threshold": ends}}
