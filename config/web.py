"""The web process: uvicorn on a socket that the supervisor opened (`python -m config.web --fd N`)."""

from __future__ import annotations

import argparse
import asyncio
import socket
from types import FrameType

import uvicorn

from config import wire
from config.asgi import application


class Server(uvicorn.Server):
    """Drains at the first signal, with the listeners still attached: uvicorn alone would wait for them first (F21)."""

    is_draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.is_draining:
            self.is_draining = True
            self.loop.call_soon_threadsafe(self._begin)
        else:  # a second signal: leave now
            self.should_exit = self.force_exit = True

    def _begin(self) -> None:
        self.draining = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        for server in getattr(self, "servers", []):
            server.close()  # no new connections; the open ones go on
        try:
            await application.drain()
        finally:
            self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self._look_around()
        await super().serve(sockets)

    def _look_around(self) -> None:
        wire.drop_lingering(self.server_state.connections, self.loop.time())
        self.loop.call_later(1, self._look_around)


def main() -> None:
    from django.conf import settings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="number of the listening socket's descriptor")
    options = parser.parse_args()
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=wire.Protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=2048,
        proxy_headers=bool(settings.TRUSTED_PROXIES),
        forwarded_allow_ips=settings.TRUSTED_PROXIES,
        timeout_graceful_shutdown=2,
    )
    Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
