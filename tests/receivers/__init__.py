"""The receiver's kit: `maintd listen` and examples/receiver.py as processes, and the real dispatcher sends to them."""
