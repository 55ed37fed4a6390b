"""From the event log to the receivers: which endpoint wants an event, when to try, how to sign, how to send.

`routing`, `retry`, `outcome` and `signing` decide and do no I/O; `dispatcher` and `sinks` act. What has happened is
kept by `maintd.store.deliveries`, so that a crash between any two of these loses nothing.
"""
