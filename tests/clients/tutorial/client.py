"""Hears of instances that come, and of one service's that go."""

from wsevent_client import WebSocketClient

client = WebSocketClient("ws://localhost:8080", jwt_token)  # noqa: F821
client.on_event("authenticated", lambda said: print("authenticated as", said["user"]["username"]))
client.on_event("service_registered", lambda event: print("service registered:", event["data"]["serviceName"]))
for name in ("service_deregistered", "service_unhealthy"):
    client.on_event(name, lambda event: print("service down:", event["data"]["nodeId"]))
client.connect()
client.subscribe("service_registered")
client.subscribe("service_deregistered", service_name="critical-service")
