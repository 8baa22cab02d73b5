"""A WebSocket origin that echoes.  ws_origin.py HOST PORT"""

import asyncio
import sys
from http import HTTPStatus

from websockets.asyncio.server import serve


def health(connection, request):
    if request.path == "/health":
        return connection.respond(HTTPStatus.OK, "ok")
    return None


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main(host, port):
    async with serve(
        echo, host, port, process_request=health, max_size=None, ping_interval=None
    ):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
