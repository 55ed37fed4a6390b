"""Our exceptions, split by whose fault they are.

The split decides what happens next: what is ours is logged with its traceback and counted; what is the
operator's is said in one sentence (what is wrong, where, what to do) and ends a command with exit code 1 or 2;
what is Nova's or a subscriber's is expected, counted and tried again. Nothing here is ever raised into
oslo.messaging: the listener catches at its own door.
"""

from __future__ import annotations


class MaintdError(Exception):
    """Something that maintd knows how to name."""


class OurFault(MaintdError):
    """A rule of our own is broken; the message says which."""


class OperatorError(MaintdError):
    """The operator can mend this; the message is a sentence that says what, where and how."""


class NovaError(MaintdError):
    """Nova, Placement or Keystone did not answer as documented; try again later, conclude nothing."""


class SubscriberError(MaintdError):
    """A receiver of events did not take one."""


class StoreUnavailable(MaintdError):
    """The database cannot be used now; nothing was committed, so nothing may be acknowledged."""


class LeaseLost(MaintdError):
    """Another maintd holds the fleet lease now; stop writing, give the fleet up, load it anew before writing again."""
