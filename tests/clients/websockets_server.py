"""Serves a WebSocket with the package `websockets`: python websockets_server.py [CERTIFICATE KEY]

Prints its URL. Each client gets a text, a binary message, a text in fragments, and, when it answered a ping, "pong";
then the close 1000.
"""

import asyncio
import ssl
import sys

import websockets


async def serve(socket):
    await socket.send("text: ä")
    await socket.send(b"\xff\x00")
    await socket.send(["in ", "", "three ", "fragments"])
    await (await socket.ping())
    await socket.send("pong")


async def main():
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[1], sys.argv[2])
    async with websockets.serve(serve, "localhost", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"{'wss' if tls else 'ws'}://localhost:{port}/anything", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
