"""Publishes a file of messages at a steady rate, in a process of its own, and notes when each went out.

    python -m bench.publisher URL MESSAGES RATE OUT [LIMIT]

`OUT` gets one line per message: its id, and the time just before it was handed to the broker's socket.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from bench.support import EXCHANGE
from maintd.simulator.bus import AmqpBus


def main(url: str, messages: str, rate: str, out: str, limit: str = "0") -> None:
    ready: list[tuple[str, str, str]] = []
    with Path(messages).open(encoding="utf-8") as file:
        for line in file:
            key, _, body = line.rstrip("\n").partition("\t")
            ready.append((key, body, json.loads(json.loads(body)["oslo.message"])["message_id"]))
            if len(ready) == int(limit):
                break
    sent: list[tuple[str, float]] = []
    with AmqpBus(url.replace("rabbit://", "amqp://"), exchange=EXCHANGE, declare_queues=False) as bus:
        began = time.monotonic()
        for number, (key, body, message_id) in enumerate(ready):
            time.sleep(max(0.0, began + number / float(rate) - time.monotonic()))
            sent.append((message_id, time.time()))
            bus.send_body(key, body)
        took = time.monotonic() - began
    Path(out).write_text("".join(f"{message_id} {at:.6f}\n" for message_id, at in sent))
    print(json.dumps({"sent": len(sent), "rate": len(sent) / took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
