"""Reads what an installation gives to the pods of every model: a setting of the operator, as JSON.

The chart writes it from its value `models`; `children.pod_defaults` puts it into pods.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from pydantic import AfterValidator

_FORM: Final = '{"tolerations": [{"key": "gpu", "operator": "Exists"}]}'


class Proxy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Proxies for downloads, as URLs."""

    https_proxy: str = ""
    http_proxy: str = ""
    no_proxy: str = ""


class CaBundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A ConfigMap of the model's namespace with the certificates that downloads trust."""

    config_map_name: str = ""
    key: str = "ca.crt"


class HubToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A Secret with the hub's token, and the namespaces that get a copy; `*` is all."""

    secret_name: str = ""
    key: str = "token"
    namespaces: tuple[str, ...] = ()

    def reaches(self, namespace: str) -> bool:
        """Return whether models of the namespace get the token."""
        return bool(self.secret_name) and not {"*", namespace}.isdisjoint(self.namespaces)


class ModelDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """All defaults; empty ones change nothing."""

    image_pull_secrets: tuple[str, ...] = ()
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class_name: str = ""
    proxy: Proxy = Proxy()
    ca_bundle: CaBundle = CaBundle()
    hub_token: HubToken = HubToken()
    service_account_annotations: dict[str, str] = {}


@lru_cache(maxsize=8)
def read_defaults(text: str) -> ModelDefaults:
    """Parse the defaults; an empty text has none. Raises ValueError."""
    if not text.strip():
        return ModelDefaults()
    try:
        return msgspec.json.decode(text, type=ModelDefaults)
    except msgspec.MsgspecError as error:
        raise ValueError(f"is not JSON of the form {_FORM}: {error}") from error


def _checked(text: str) -> str:
    read_defaults(text)
    return text


# The type of a setting, validated when settings are loaded.
ModelDefaultsJson = Annotated[str, AfterValidator(_checked)]
