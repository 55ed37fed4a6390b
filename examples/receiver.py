#!/usr/bin/env python3
"""A whole receiver of maintd's webhooks: verifies, takes each event once, and never goes back in time.

receiver.py SECRET_FILE STATE_FILE PORT        (needs: pip install standardwebhooks)
"""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError


def act(event):
    """What you want done. If it raises, nothing is written down, and maintd sends the event again."""
    print(json.dumps([event["type"], event["subject"], event["sequence"]]), flush=True)


class Receiver(BaseHTTPRequestHandler):
    timeout = 5  # a client that says nothing must not hold up the others

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        self.send_response(self.answer(int(length)) if length.isdigit() and len(length) < 8 else 413)
        self.end_headers()

    def answer(self, length):
        body = self.rfile.read(length)
        try:
            event = Webhook(secret).verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return 401
        with state:  # one transaction: the event is acted on and remembered, or neither
            if self.is_new(event):
                act(event)
        return 204

    def is_new(self, event):
        seen = state.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (event["source"], event["id"]))
        if seen.rowcount == 0:
            return False  # delivered at least once means: sometimes twice
        newer = state.execute(
            "INSERT INTO newest VALUES (:source, :subject, :sequence) ON CONFLICT DO UPDATE"
            " SET sequence = excluded.sequence WHERE excluded.sequence > sequence",
            {name: event[name] for name in ("source", "subject", "sequence")},
        )
        return newer.rowcount == 1  # else something later is known of this subject already


if __name__ == "__main__":
    secret = open(sys.argv[1]).read().strip()
    state = sqlite3.connect(sys.argv[2])
    state.execute("CREATE TABLE IF NOT EXISTS seen (source, id, PRIMARY KEY (source, id))")
    state.execute("CREATE TABLE IF NOT EXISTS newest (source, subject, sequence, PRIMARY KEY (source, subject))")
    HTTPServer(("127.0.0.1", int(sys.argv[3])), Receiver).serve_forever()
