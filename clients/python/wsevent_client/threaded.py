"""The client for programs without asyncio: it lives in a thread of its own, where its handlers are called."""

from __future__ import annotations

import asyncio
import threading
from typing import Callable, Optional

from .aio import AsyncWebSocketClient, Handler


class WebSocketClient:
    """Hears what happens in a registry, and goes on after a lost connection."""

    def __init__(self, url: str = "ws://localhost:8080", token: Optional[str] = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wsevent-client", daemon=True)
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(self._make(url, token), self._loop).result()

    @staticmethod
    async def _make(url: str, token: Optional[str]) -> AsyncWebSocketClient:
        return AsyncWebSocketClient(url, token)

    def on_event(self, name: str, handler: Handler) -> None:
        """Calls the handler with each event of this name, or answer of this type; `error` and `close` are told, too."""
        self._client.on_event(name, handler)

    def connect(self) -> None:
        """Begins to open the connection, unless it is open; the `error` handlers hear when that fails."""
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop)

    async def _connect(self) -> None:
        try:
            await self._client.connect()
        except Exception:
            pass  # the `error` handlers have heard of it

    def subscribe(
        self, event_type: str, service_name: Optional[str] = None, node_id: Optional[str] = None
    ) -> None:
        """Asks for events of this name, of one service or of one instance where that is said. Adds up."""
        self._do(lambda: self._client.subscribe(event_type, service_name, node_id))

    def unsubscribe(self) -> None:
        """Asks for nothing any more."""
        self._do(self._client.unsubscribe)

    def refresh_token(self) -> None:
        """Asks for a new token, which is used from then on."""
        self._do(self._client.refresh_token)

    def disconnect(self) -> None:
        """Closes the connection for good."""
        asyncio.run_coroutine_threadsafe(self._client.disconnect(), self._loop)

    def _do(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)
