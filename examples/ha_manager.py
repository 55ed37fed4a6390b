#!/usr/bin/env python3
"""A reference HA manager: of each pair of servers it keeps the active role on the one that no maintenance touches.

ha_manager.py CONFIG.json        (needs: pip install standardwebhooks; docs/receivers.md says what the file holds)

Events make it fast, `GET /v1/servers/maintenance` makes it right: it reads that at the start, after every gap between
events and every so often, so that lost, doubled and late events cannot leave it wrong. A decision is written down
before anything is done. What does it is the pair's own command, called with the pair, the server that is to be active
and the decision's number: it has to take the role from the other server first, may be called again with the same
three, and has to end with status 0 when that is done. Two calls for a pair never overlap, not even over a restart.
"""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

from standardwebhooks import Webhook, WebhookVerificationError


def has_to_go(state):
    """Whether the active role must not stay here: not for its owner's moves, nor if many hosts are lost at once."""
    move, lost = state.get("move"), state.get("host_lost") or {"widespread": True}
    return bool(state.get("maintenance") or not lost["widespread"] or (move and move["asked_for_by"] != "owner"))


def is_free(state):
    """Whether the role may come here: nothing touches it at all."""
    return not (state.get("maintenance") or state.get("host_lost") or state.get("move"))


class Known:
    """What is known of each server, by its highest number; and whether something that was told may be missing."""

    def __init__(self):
        self.changed = threading.Condition()
        self.highest = None  # until the truth was read
        self.states = {}  # server: (number, state)
        self.version = self.doubts = self.settled = 0

    def hear(self, event):
        """Take a tenant event; False while nothing can be made of it, because the truth was never read."""
        with self.changed:
            if self.highest is None:
                return False
            number = int(event["sequence"])
            if number > self.highest + 1:
                self.doubts += 1  # what lies between was lost or is on its way: the truth is read before deciding
            self.highest = max(self.highest, number)
            self._take(event["subject"], number, event["data"]["state"])
            return True

    def read(self, number, listed, servers):
        """Take the truth as of `number`: what is not listed is touched by nothing."""
        with self.changed:
            self.highest = max(number, self.highest or 0)
            for server in servers:
                state = listed.get(server, {})
                self._take(server, max(number, state.get("incarnation", 0)), state)

    def _take(self, server, number, state):
        if number >= self.states.get(server, (-1,))[0]:
            self.states[server] = (number, state)
        self.version += 1
        self.changed.notify_all()

    def doubt(self, settled, timeout_s):
        """Take the first `settled` doubts for settled, wait for another or so long; how many there were."""
        with self.changed:
            self.settled, self.version = settled, self.version + 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.doubts > settled, timeout_s)
            return self.doubts

    def news(self, seen, wait_s):
        """Wait for what can be decided on, or so long: its version, and the states (none: there is nothing new)."""
        with self.changed:
            if self.changed.wait_for(lambda: self.settled == self.doubts and self.version > seen, wait_s):
                return self.version, {server: state for server, (_, state) in self.states.items()}
            return seen, {}


class Pair(threading.Thread):
    """One pair, in a thread of its own: decide, write down, do."""

    def __init__(self, name, pair, known, config, lock):
        super().__init__(daemon=True)
        self.name, self.known, self.config, self.lock = name, known, config, lock
        self.command, self.servers = pair["command"], (pair["primary"], pair["standby"])

    def run(self):
        store = sqlite3.connect(self.config["state_file"], isolation_level=None, timeout=60)
        store.execute("INSERT OR IGNORE INTO pairs VALUES (?, ?, 0, 1)", (self.name, self.servers[0]))
        row = store.execute("SELECT active, term, done FROM pairs WHERE pair = ?", (self.name,))
        (active, term, done), seen = row.fetchone(), 0
        if active not in self.servers:
            raise ValueError(f"the state file says that {active} is active, which is no server of pair {self.name}")
        while True:
            seen, states = self.known.news(seen, None if done else self.config.get("retry_s", 5))
            other = self.servers[active == self.servers[0]]
            if states and has_to_go(states[active]) and is_free(states[other]):
                active, term, done = other, term + 1, False
                values = (active, term, self.name)
                store.execute("UPDATE pairs SET active = ?, term = ?, done = 0 WHERE pair = ?", values)
            if not done:
                done = self.call(active, str(term))
                print(f"{self.name}: decision {term}, {active} active:", "done" if done else "FAILED", flush=True)
                store.execute("UPDATE pairs SET done = ? WHERE pair = ?", (done, self.name))

    def call(self, active, term):
        """Run the command, bounded in time with all that it starts; whether it did what it was to do."""
        argv = ["timeout", "-k", "5", str(self.config.get("command_s", 60)), *self.command, self.name, active, term]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, pass_fds=[self.lock]).returncode == 0


def truth(config):
    """What touches the project's servers: (number, state by server)."""
    headers, listed, number, more = {}, {}, None, {}
    if "token_command" in config:  # such as openstack token issue -f value -c id
        headers["X-Auth-Token"] = subprocess.check_output(config["token_command"], text=True, timeout=30).strip()
    while number is None or more["after"] is not None:
        url = f"{config['api']}/v1/servers/maintenance?{urlencode(more)}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            page = json.load(answer)
        if number not in (None, page["incarnation"]):  # something happened between two pages
            return truth(config)
        listed.update((state["server_id"], state) for state in page["servers"])
        number, more = page["incarnation"], {"after": page["next"]}
    return number, listed


class Handler(BaseHTTPRequestHandler):
    timeout = 5  # for a client that says nothing

    def do_OPTIONS(self):  # maintd asks whether it may send events here; whatever comes has to be signed anyway
        origin = " ".join(self.headers.get("WebHook-Request-Origin", "*").split())
        self.reply(204, {"WebHook-Allowed-Origin": origin, "Allow": "POST"})

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        self.reply(*(self.answer(int(length)) if length.isdecimal() and len(length) < 8 else (413,)))

    def answer(self, length):
        body, event = self.rfile.read(length), None
        for webhook in self.server.webhooks:
            try:
                event = event or webhook.verify(body, dict(self.headers))
            except (WebhookVerificationError, ValueError):
                continue
        if not event:
            return (401,)
        if event["type"] == "maintd.subscription.verify.v1":
            return 200, {"Content-Type": "application/json"}, json.dumps({"challenge": event["data"]["challenge"]})
        if event["type"].startswith("maintd.server.") and not self.server.known.hear(event):
            return (503,)  # maintd sends it again
        return (204,)

    def reply(self, status, headers=(), body=""):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


def main(config):
    lock = os.open(config["state_file"] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    print("Waiting until no other manager runs, and no command that an earlier one left behind.", flush=True)
    fcntl.flock(lock, fcntl.LOCK_EX)  # the commands hold it too
    with sqlite3.connect(config["state_file"]) as store:
        store.execute("CREATE TABLE IF NOT EXISTS pairs (pair PRIMARY KEY, active, term, done)")
    known = Known()
    pairs = [Pair(name, pair, known, config, lock) for name, pair in config["pairs"].items()]
    server = ThreadingHTTPServer(tuple(config["listen"]), Handler)
    server.known, secrets = known, open(config["secret_file"]).read().split()  # two, while one is changed
    server.webhooks = [Webhook(secret) for secret in secrets]
    for thread in (*pairs, threading.Thread(target=server.serve_forever, daemon=True)):
        thread.start()
    servers, doubts = [one for pair in pairs for one in pair.servers], 0
    while True:
        wait_s = config["reconcile_s"]
        try:
            known.read(*truth(config), servers)
        except (OSError, ValueError, KeyError, TypeError, HTTPException, subprocess.SubprocessError) as wrong:
            doubts, wait_s = known.doubts, config.get("retry_s", 5)  # meanwhile it decides on what it was told
            print(f"The truth could not be read from {config['api']}: {wrong!r}", flush=True)
        doubts = known.doubt(doubts, wait_s)


if __name__ == "__main__":  # a thread's end is the manager's: who supervises it starts it anew, and it reads the truth
    threading.excepthook = lambda args: (sys.excepthook(*args[:3]), os._exit(1))
    main(json.load(open(sys.argv[1])))
