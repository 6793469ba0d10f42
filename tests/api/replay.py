"""A loopback upstream that answers each chat request with bytes a test gave it, by model name."""

from __future__ import annotations

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Reply(NamedTuple):
    body: bytes
    status: int = 200
    kind: str = "text/event-stream"


class Replay:
    """`replies[model]` is what it sends, in uneven pieces; `asked` keeps the JSON of every request."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[dict] = []
        replay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                replay.asked.append(asked)
                reply = replay.replies[asked["model"]]
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                chance, at = random.Random(asked["model"]), 0
                while at < len(reply.body):
                    piece = reply.body[at : at + chance.choice((7, 1_000, 20_000))]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    at += len(piece)
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
