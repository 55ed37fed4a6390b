#!/usr/bin/env python3
"""A whole receiver of maintd's webhooks: verifies, takes each event once, and never goes back in time.

receiver.py SECRET_FILE STATE_FILE PORT        (needs: pip install standardwebhooks)
"""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

# Changes a row only for what is newer than all that came of a subject: neither what came before nor what comes late.
NEWER = """INSERT INTO newest VALUES (:source, :subject, :sequence) ON CONFLICT DO UPDATE
    SET sequence = excluded.sequence WHERE excluded.sequence > sequence"""


def act(event):
    """What you want done. If it raises, nothing is written down, and maintd sends the event again."""
    print(json.dumps([event["type"], event["subject"], event["sequence"]]), flush=True)


class Receiver(BaseHTTPRequestHandler):
    timeout = 5  # a client that says nothing must not hold up the others

    def do_OPTIONS(self):  # maintd asks whether it may send here; whatever comes has to be signed anyway
        self.reply(204, allowed=" ".join(self.headers.get("WebHook-Request-Origin", "*").split()))

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        self.reply(*(self.answer(int(length)) if length.isdecimal() and len(length) < 8 else (413,)))

    def answer(self, length):
        try:
            event = Webhook(secret).verify(self.rfile.read(length), dict(self.headers))
        except (WebhookVerificationError, ValueError):
            return (401,)
        if event["type"] == "maintd.subscription.verify.v1":
            return 200, json.dumps({"challenge": event["data"]["challenge"]})
        with state:  # one transaction: the event is acted on and remembered, or neither
            if state.execute(NEWER, event).rowcount == 1:
                act(event)
        return (204,)

    def reply(self, status, body="", allowed="*"):
        self.send_response(status)
        self.send_header("WebHook-Allowed-Origin", allowed)
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    secret = open(sys.argv[1]).read().strip()
    state = sqlite3.connect(sys.argv[2])
    state.execute("CREATE TABLE IF NOT EXISTS newest (source, subject, sequence, PRIMARY KEY (source, subject))")
    HTTPServer(("127.0.0.1", int(sys.argv[3])), Receiver).serve_forever()
