"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
from typing import Any, Callable, Optional

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

# The first and the longest pause before a lost connection is opened again, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# Each event comes in an envelope that says where it stands among the others.
PROTOCOL: Any = "cloudevents.json"

Handler = Callable[[Any], Any]
log = logging.getLogger("wsevent_client")


class AsyncWebSocketClient:
    """Hears what happens in a registry, and goes on after a lost connection."""

    def __init__(self, url: str = "ws://localhost:8080", token: Optional[str] = None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._handlers: dict[str, list[Handler]] = {}
        self._wanted: list[dict] = []  # what every new connection has to hear
        self._pending: list[dict] = []  # what the next connection has to hear
        self._outbox: Optional[asyncio.Queue[dict]] = None  # while it is open
        self._task: Optional[asyncio.Task] = None
        self._opened: Optional[asyncio.Future] = None
        self._lasting = True
        self._now = asyncio.Event()
        self._position: Optional[str] = None  # where the last event stood
        self._resuming = False  # what comes is told again from where the last connection ended

    def on_event(self, name: str, handler: Handler) -> None:
        """Calls the handler with each event of this name, or answer of this type; `error` and `close` are told, too."""
        self._handlers.setdefault(name, []).append(handler)

    async def connect(self) -> None:
        """Opens the connection, unless it is open; raises when that fails."""
        if self._task is None or self._task.done():
            self._lasting = True
            self._opened = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._opened))
        self._now.set()
        await asyncio.shield(self._opened)

    def subscribe(
        self, event_type: str, service_name: Optional[str] = None, node_id: Optional[str] = None
    ) -> None:
        """Asks for events of this name, of one service or of one instance where that is said. Adds up."""
        wanted = {"event": event_type, "serviceName": service_name, "nodeId": node_id}
        self._want({"subscribe": {name: value for name, value in wanted.items() if value is not None}})

    def unsubscribe(self) -> None:
        """Asks for nothing any more."""
        self._wanted.clear()
        self._want({"unsubscribe": True})

    def refresh_token(self) -> None:
        """Asks for a new token, which is used from then on."""
        if self._token is None:
            return
        if self._outbox is not None:
            self._outbox.put_nowait({"refresh_token": True})
        else:
            self._pending.append({"refresh_token": True})

    async def disconnect(self) -> None:
        """Closes the connection for good."""
        self._lasting = False
        self._position = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _want(self, message: dict) -> None:
        if message not in self._wanted:
            self._wanted.append(message)
        if self._outbox is not None:
            self._outbox.put_nowait(message)

    async def _run(self, opened: asyncio.Future) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with connect(self._url, subprotocols=[PROTOCOL]) as socket:
                    pause = FIRST_PAUSE
                    await self._talk(socket, opened)
            except (OSError, WebSocketException) as error:
                await self._emit("error", error)
                if not opened.done():
                    opened.set_exception(error)
                    self._lasting = False
            await self._emit("close", None)
            if not self._lasting:
                return
            self._now.clear()
            try:
                # connect() tries at once.
                await asyncio.wait_for(self._now.wait(), pause * random.uniform(0.5, 1))
            except asyncio.TimeoutError:
                pass
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _talk(self, socket: ClientConnection, opened: asyncio.Future) -> None:
        self._outbox = asyncio.Queue()
        greeting = [{"auth": self._token}] if self._token else []
        resume = [{"resume": self._position}] if self._position else []
        self._resuming = bool(resume)
        for message in greeting + self._wanted + self._pending + resume:
            self._outbox.put_nowait(message)
        self._pending.clear()
        speaker = asyncio.create_task(self._speak(socket, self._outbox))
        if not opened.done():
            opened.set_result(None)
        try:
            async for text in socket:
                await self._hear(text)
        except ConnectionClosed:
            pass
        finally:
            self._outbox = None
            speaker.cancel()
            if socket.close_code == 1013 and (socket.close_reason or "").startswith("gone"):
                # What came behind the last event is forgotten there: on from the oldest that is known.
                self._position = "oldest"

    async def _speak(self, socket: ClientConnection, outbox: asyncio.Queue[dict]) -> None:
        try:
            while True:
                await socket.send(json.dumps(await outbox.get()))
        except ConnectionClosed:
            pass

    async def _hear(self, text: Any) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if "specversion" in message:
            if self._resuming:
                return
            self._position = message["wseventid"]
            message = message["data"]
        kind = message.get("type")
        if kind in ("resumed", "error"):
            self._resuming = False
        if kind == "token_refreshed":
            self._token = message["token"]
        elif kind in ("auth_failed", "auth_required"):
            # Trying again with the same token would not help.
            self._lasting = False
        await self._emit(message.get("event") or kind, message)

    async def _emit(self, name: Optional[str], what: Any) -> None:
        for handler in self._handlers.get(name or "", []):
            try:
                result = handler(what)
                if inspect.isawaitable(result):
                    await result
            except Exception:  # the others are not to suffer
                log.exception("a handler of %s failed", name)
