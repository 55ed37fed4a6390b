"""maintd: the truth about host maintenance in an OpenStack cloud."""

__version__ = "0.1.0"
