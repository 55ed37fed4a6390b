"""The HTTP side: the read API that commands and scripts use, and the health endpoints.

`server.py` has the table of routes and starts the servers; `fleet.py`, `events.py`, `deliveries.py` and `health.py`
answer. Everything is answered from the store, so that every controller can, whether it holds the fleet lease or not;
what only the running process knows is handed in by `app` as plain functions (`context.WebApp`).
"""
