"""Finds out why the model hub does not give a model, with a request or two to it.

Libraries report an unreachable hub, an unknown name and a missing licence alike. Called after a
start that failed for want of files.
"""

from __future__ import annotations

import os
from http import HTTPStatus

_SECONDS = 10.0
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def hub_problem(model: str, revision: str | None = None) -> str:
    """Return the cause as `Type: message`; empty where the hub gives the model, or is not used."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        return ""
    try:
        api = HfApi()
        if api.model_info(model, revision=revision, timeout=_SECONDS).gated:
            api.auth_check(model)
    except (OfflineModeIsEnabled, HFValidationError) as error:
        return _text(error)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        is_passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING
        return f"HubUnreachable: {_text(error)}" if is_passing else _text(error)
    # Of whichever HTTP library the hub's client uses.
    except Exception as error:
        return f"HubUnreachable: {_text(error)}"
    return ""


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
