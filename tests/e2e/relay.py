"""`python -m tests.e2e.relay <listen> <to> <port>…`: carry TCP connections from one address to
another, port by port, and nothing but their bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK_BYTES = 64 * 1024
LISTENING = "listening"


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(listen: str, to: str, port: int) -> asyncio.Server:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(to, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))

    return await asyncio.start_server(accepted, listen, port)


async def _main() -> None:
    _, listen, to, *ports = sys.argv
    servers = [await _serve(listen, to, int(port)) for port in ports]
    print(LISTENING, flush=True)
    await asyncio.gather(*[server.serve_forever() for server in servers])


if __name__ == "__main__":
    asyncio.run(_main())
