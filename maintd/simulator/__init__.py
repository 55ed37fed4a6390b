"""A small Nova: it answers the REST calls maintd makes and emits the notifications that real Nova emits.

For the demo, the tests and the benchmarks; never for anything that runs servers. `Cloud` is the cloud itself,
`rest.RestServer` answers for it over HTTP, `bus` carries what it emits, `stories` are ready-made ones. It is held
against recordings of a real Nova by tests/simulator. It depends on nothing of maintd but the clock and the errors.
"""

from maintd.simulator.model import Cloud, Refused, Timing

__all__ = ["Cloud", "Refused", "Timing"]
