from pathlib import Path

import pytest

from autoglm.gateway.envoy.config import Sockets
from autoglm.gateway.envoy.program import EnvoyFailed, Sidecar


@pytest.mark.looptime
async def test_sidecar_that_does_not_run_is_reported_after_a_minute(tmp_path: Path) -> None:
    with pytest.raises(EnvoyFailed, match=f"{tmp_path}/admin for 60 s.*-c {tmp_path}/envoy.yaml"):
        await Sidecar.start("admin: {}", Sockets(tmp_path))
    assert (tmp_path / "envoy.yaml").read_text() == "admin: {}"
