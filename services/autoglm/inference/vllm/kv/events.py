"""Reads vLLM's KV-cache events from its engine process, and names the prompts that it works on.

The engine process publishes over a ZeroMQ socket in a directory of our own; one task reads it on
the event loop. After lost events the cache is taken to be empty. Built by `launch`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from typing import Any

import msgspec
import zmq.asyncio
from vllm.config.kv_events import KVEventsConfig

from autoglm.inference.kv import block_naming
from autoglm.inference.kv.feed import KvFeed
from autoglm.inference.kv.ledger import ends
from autoglm.inference.vllm.kv.translation import Batch, Translator, block_names

# Steps of the engine whose events may wait for us.
_MOST_WAITING = 10_000
_LEAST_NAMES = 4096
_log = logging.getLogger("autoglm.inference")


class KvEvents:
    """`config` is for vLLM; `start` reads what it then publishes, `close` ends that."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(
            prefix="autoglm-kv-", ignore_cleanup_errors=True
        )
        self._endpoint = f"ipc://{self._directory.name}/events"
        self.config = KVEventsConfig(
            enable_kv_cache_events=True,
            publisher="zmq",
            endpoint=self._endpoint,
            # No batch is requested twice.
            buffer_steps=1,
            hwm=_MOST_WAITING,
        )
        self._reading: asyncio.Task[None] | None = None
        self._size = 0
        self.feed: KvFeed | None = None

    def start(self, block_size: int, blocks: int) -> None:
        self._size = block_size
        self.feed = KvFeed(max(_LEAST_NAMES, blocks))
        translator = Translator(block_size, self.feed.ledger)
        self._reading = asyncio.create_task(self._read(translator), name="kv events")

    def requested(self, prompt: Any, adapter: Any) -> None:
        """Record the block names of a prompt that the engine is about to process."""
        naming = block_naming.take()
        ids = prompt.get("prompt_token_ids") if isinstance(prompt, dict) else None
        if naming is None or self.feed is None or not ids:
            return
        salt = prompt.get("cache_salt") or ""
        blocks = block_names(ids, self._size, adapter.lora_name if adapter else None, salt)
        named = ends(naming.prefix, naming.salt, len(ids), blocks, self._size)
        self.feed.ledger.requested(named)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        self.remove_directory()

    def remove_directory(self) -> None:
        self._directory.cleanup()

    async def _read(self, translator: Translator) -> None:
        decoder, wanted = msgspec.msgpack.Decoder(Batch), None
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.SUB)
        socket.set_hwm(_MOST_WAITING)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(self._endpoint)
        try:
            while True:
                _, number, payload = await socket.recv_multipart()
                sequence = int.from_bytes(number, "big")
                if wanted not in (None, sequence):
                    _log.warning("lost KV-cache events %s to %d", wanted, sequence - 1)
                    translator.lose()
                wanted = sequence + 1
                try:
                    events = decoder.decode(payload).events
                except msgspec.DecodeError as error:
                    _log.warning("KV-cache events that cannot be read: %s", error)
                    translator.lose()
                    continue
                for event in events:
                    translator.apply(event)
        finally:
            # Gateways must not rely on a state that is not updated any more.
            translator.lose()
            socket.close(linger=0)
            context.term()
