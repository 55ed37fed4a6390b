"""Chaos: the story of two projects and an operator, while everything that it rests on breaks down again and again.

A simulated Nova speaks over a real RabbitMQ; `maintd run` is a process, as an operator starts it; two projects have
subscribed over the API with tokens of their own; project A runs the reference HA manager. Then, all at once and drawn
from a seed: maintd is killed (SIGKILL), the broker is killed and started, receivers are away, refuse or hang, the HA
manager is killed. Meanwhile hosts are drained and lost, servers fail to move, owners resize.

`world` is what stands there, `story` what its people do, `trouble` what breaks, `judge` what must be true afterwards:
no event missing, none under a second id, order for each server, the present state right, the active role right.

    python -m tests.chaos --kills 50 [--seed 1] [--seeds 5]

The same seed draws the same troubles; when they meet the story is the machine's doing, so a fault is told with its
seed and the folder that holds everything, rather than promised to come again.
"""
