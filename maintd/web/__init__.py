"""The HTTP side: the API that commands, scripts and projects use, and the health endpoints.

`server.py` has the table of routes and starts the servers, `auth.py` the policy of who may ask; `fleet.py`,
`events.py`, `deliveries.py`, `subscriptions.py` and `health.py` answer. Everything is answered from the store, so that
every controller can, whether it holds the fleet lease or not; what only the running process knows is handed in by
`app` as plain functions (`context.WebApp`).
"""
