"""Fetches images, audio and video from where the pod's operator allows it, and from nowhere else.

vLLM fetches media of any host, and follows redirects, unless it is given domains. This connector
takes `data:` URLs, and http(s) URLs of the hosts in `allowed_media_domains` only; a URL of another
host is rejected before a name is resolved or a connection made. Registered by `install`, which
`launch` calls; all of vLLM's APIs load media through it.
"""

from __future__ import annotations

import os
from typing import Any

from urllib3.util import parse_url
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector

NAME = "autoglm"
_KINDS = {"Image": "image_url", "Audio": "audio_url", "Video": "video_url"}


class AllowedMedia(MediaConnector):  # type: ignore[misc]  # vLLM is not typed
    """`allowed_media_domains` are host names in lower case; none allows no host."""

    def load_from_url(self, url: str, media_io: Any, **options: Any) -> Any:
        self._check(url, media_io)
        return super().load_from_url(url, media_io, **options)

    async def load_from_url_async(self, url: str, media_io: Any, **options: Any) -> Any:
        self._check(url, media_io)
        return await super().load_from_url_async(url, media_io, **options)

    def _check(self, url: str, media_io: Any) -> None:
        """Raises VLLMValidationError naming the field."""
        if url[:5].lower() == "data:":
            return
        field = _KINDS.get(type(media_io).__name__[:5], "image_url")
        try:
            parsed = parse_url(url)
        except ValueError:
            raise VLLMValidationError(f"{field} is no URL", parameter=field) from None
        if parsed.scheme == "file" and self.allowed_local_media_path is not None:
            return
        if parsed.scheme not in ("http", "https"):
            raise VLLMValidationError(
                f"{field} has the scheme {parsed.scheme or 'none'}; send a data: URL",
                parameter=field,
            )
        if parsed.hostname in self.allowed_media_domains:
            return
        allowed = ", ".join(self.allowed_media_domains) or "none"
        raise VLLMValidationError(
            f"{field} is on {(parsed.hostname or '')[:253]!r}; this model takes media from data: "
            f"URLs and from these hosts: {allowed} (engine.media.allowedDomains)",
            parameter=field,
        )


def install() -> None:
    """Make vLLM load media with it, and follow no redirects unless the environment says so."""
    MEDIA_CONNECTOR_REGISTRY.register(NAME)(AllowedMedia)
    os.environ["VLLM_MEDIA_CONNECTOR"] = NAME
    os.environ.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
