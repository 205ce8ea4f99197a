"""API keys of tenants, for gateways that tests start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from autoglm.gateway.identity.keys import new_key


def api_keys(path: Path, tenants: Sequence[str]) -> dict[str, str]:
    """Writes the file of `--api-keys-file`; the key of each tenant by its name."""
    made = {tenant: new_key(tenant) for tenant in tenants}
    path.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in made.values()]}))
    return {tenant: key for tenant, (key, _) in made.items()}
