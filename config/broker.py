"""The embedded Celery broker: kombu's filesystem transport, made safe for readers who look while another writes.

kombu writes a message in place, so a worker that polls at that moment takes an empty file and stops on it; and it
moves what it takes through the system's shared temporary folder. Here a message appears whole or not at all, and
never leaves its folder. It still loses the running task on `kill -9`: nothing may depend on redelivery (design.md §7).
"""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for folder in (self.data_folder_in, self.control_folder):
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _put(self, queue: str, payload: dict[str, Any], **kwargs: Any) -> None:  # type: ignore[override]  # kombu's own
        folder = Path(self.data_folder_out)
        name = f"{time.time_ns() // 1000:020d}_{uuid.uuid4()}"
        draft = folder / f"{name}.draft"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(str_to_bytes(dumps(payload)))
        draft.rename(folder / f"{name}.{queue}.msg")

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        folder = Path(self.data_folder_in)
        for name in sorted(path.name for path in folder.iterdir()):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = folder / f"{name}.taken"
            try:
                (folder / name).rename(taken)  # of two workers, one succeeds
            except FileNotFoundError:
                continue
            data = taken.read_bytes()
            taken.unlink()
            return loads(bytes_to_str(data))
        raise Empty


class Transport(filesystem.Transport):
    Channel = Channel
