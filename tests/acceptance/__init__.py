"""maintd against a real Nova, as an operator would meet it. `make acceptance` runs it; `make test` does not.

A story changes the cloud by hand (through openstacksdk, never through maintd's own code), while the real `maintd run`
listens beside it and a real receiver takes its webhooks. What maintd said is then held against what Nova and Placement
say: `judge.py` knows how. Any cloud will do that clouds.yaml names, with an account that may administer it and a
transport URL that reaches its notifications.

It makes servers of its own and only ever moves those; a host that holds anybody else's is refused.
"""
