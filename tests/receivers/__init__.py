"""The receiver's kit: `maintd listen` and the examples as processes that are sent to over real sockets."""
