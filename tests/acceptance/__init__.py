"""maintd against a real Nova, as an operator would meet it. `make acceptance` runs it; `make test` does not.

A story changes the cloud by hand (through openstacksdk, never through maintd's own code), while the real `maintd run`
listens beside it and a real receiver takes its webhooks. What maintd said is then held against what Nova and Placement
say: `judge.py` knows how. Any cloud will do that clouds.yaml names, with an account that may administer it and a
transport URL that reaches its notifications.

Before any story, and on this machine alone, `test_judge.py` tries the judge, `test_keystone.py` tokens of a real
Keystone, and `test_canary.py` searches all that owners could read, over a long story, for what is not theirs.

It makes servers of its own and only ever moves those; a host that holds anybody else's is refused.

The stories, and what they need beyond that (commands: STOP_COMPUTE and START_COMPUTE, SET_KNOB; `stage.py` says how):

| family | stories | need |
|---|---|---|
| live | drain, abort, nowhere | |
| | fail, abort_queued (two servers), force_complete, crash and post_failure (five minutes each) | SET_KNOB |
| | restart (five minutes) | STOP_COMPUTE, START_COMPUTE, SET_KNOB |
| stalls | frozen, not_converging (two minutes each) | SET_KNOB |
| cold | cold, revert, delete_unconfirmed | |
| | resize_here | `allow_resize_to_same_host` in nova-api |
| | finish_failure, copy_failure | SET_KNOB |
| dead | evacuate, accept, evacuate_delete, delete_down, force_delete_down, delete_down_cleared, delete_down_trusted, \
force_delete_down_trusted | STOP_COMPUTE, START_COMPUTE |
| | evacuate_failure | STOP_COMPUTE, START_COMPUTE, SET_KNOB |
| other | build, refill, shelve, delete, error | |
| | build_late | SET_KNOB |
| | soft_delete | `reclaim_instance_interval` in nova-api |
| | reclaim | the same in nova-compute too |
| tenants | tenants | an administrator who may make projects and users in Keystone |
| buses | second_bus (two servers) | HOST whose Nova notifies elsewhere, MAINTD_SECOND_TRANSPORT_URL |
"""
