"""The probes: each looks at one thing, within a bounded time, and brings plain facts home. They judge nothing.

What cannot be looked at is a fact too, with a sentence that says why; a probe raises nothing that an operator could
cause.
"""
