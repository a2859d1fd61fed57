"""Says what it hears from a registry, a line each. Arguments: URL, token."""

import json
import pathlib
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients/python"))

from wsevent_client import WebSocketClient


def say(*words):
    print(*words, flush=True)


client = WebSocketClient(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
client.on_event("subscribed", lambda message: say("subscribed", json.dumps(message["filter"], separators=(",", ":"))))
client.on_event("service_registered", lambda event: say(event["event"], event["data"]["nodeId"]))
client.on_event("token_refreshed", lambda message: say("refreshed"))
client.on_event("auth_failed", lambda message: say("refused"))
client.on_event("error", lambda error: say("error"))
client.on_event("close", lambda _: (say("close"), threading.Timer(0.1, client.connect).start()))
client.subscribe("service_registered", "web")
client.connect()
client.subscribe("service_registered", node_id="api:localhost:9")
client.refresh_token()
threading.Event().wait()
