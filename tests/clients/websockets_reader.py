"""Reads a WebSocket with the package `websockets`: python websockets_reader.py URL [MESSAGE...]

Says "open", sends the messages, and prints each message and the close as one JSON array per line.
"""

import asyncio
import base64
import json
import sys

import websockets


def say(*words):
    print(json.dumps(words), flush=True)


async def main(url, messages):
    async with websockets.connect(url, max_size=None) as socket:
        say("open")
        for message in messages:
            await socket.send(message)
        try:
            while True:
                message = await socket.recv()
                if isinstance(message, str):
                    say("text", message)
                else:
                    say("binary", base64.b64encode(message).decode())
        except websockets.ConnectionClosed as closed:
            say("close", closed.rcvd.code if closed.rcvd else 1006)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
