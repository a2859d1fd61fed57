"""Hears what happens in a wsevent registry."""

from .aio import AsyncWebSocketClient
from .threaded import WebSocketClient

__all__ = ["AsyncWebSocketClient", "WebSocketClient"]
