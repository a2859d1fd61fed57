"""The world of a program that names well-known ports: python world.py PROGRAM

PORTS: `8080=40001,…`, the ports that stand for those that it names. HELPERS: functions that it calls and does not have;
each prints its name and what it got. TOKEN: `jwt_token`. The program's threads live on behind its end.
"""

import json
import os
import pathlib
import runpy
import socket
import sys
import threading

sys.stdout.reconfigure(line_buffering=True)
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "clients/python"))
import wsevent_client  # noqa: E402

# What programs do that were written for a module of another name.
sys.modules["maxine_client"] = wsevent_client

ports = dict(pair.split("=") for pair in os.environ.get("PORTS", "").split(",") if pair)
look_up = socket.getaddrinfo


def stand_in(host, port, *args, **kwargs):
    return look_up(host, int(ports.get(str(port), port)), *args, **kwargs)


def helper(name):
    return lambda *args: print(name, json.dumps(args))


socket.getaddrinfo = stand_in
known = {name: helper(name) for name in os.environ.get("HELPERS", "").split(",") if name}
runpy.run_path(sys.argv[1], init_globals={**known, "jwt_token": os.environ.get("TOKEN")})
threading.Event().wait()
