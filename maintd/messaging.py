"""oslo.messaging, imported and set up the only safe way.

oslo.service must be told to use its threading backend before oslo.messaging is imported, or it takes the eventlet one;
and eventlet, which comes along as a dependency of a dependency, greets everybody with deprecation warnings although
nobody uses it here. Whoever needs oslo.messaging, to read (`nova`) or to publish (`delivery`), imports it from this
module and makes its transport here: from what maintd was configured with, and from no file, variable or command line
that the library would look at by itself.

Nothing is connected, sent or received here, and nothing of Nova is known.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oslo_service import backend

    backend.init_backend(backend.BackendType.THREADING)

    import oslo_messaging
    from oslo_messaging import exceptions, opts
    from oslo_messaging._drivers import common as driver_common
    from oslo_messaging.notify import listener

__all__ = ["DRIVER_LOG", "driver_common", "exceptions", "listener", "oslo_messaging", "opts", "transport", "words"]

DRIVER_LOG = "oslo.messaging._drivers.impl_rabbit"
"""The logger of the driver for RabbitMQ, which tells at length what its callers are told as well."""

_RABBIT = "oslo_messaging_rabbit"


def transport(url: str, rabbit_options: Mapping[str, object]) -> Any:
    """A transport for notifications; it connects when it is first used. The options are those of oslo.messaging's
    group `oslo_messaging_rabbit`."""
    conf = cfg.ConfigOpts()
    conf([], project="maintd", default_config_files=[], default_config_dirs=[], use_env=False)
    for group, options in opts.list_opts():
        if group == _RABBIT:
            conf.register_opts(options, group=group)
    for name, value in rabbit_options.items():
        conf.set_override(name, value, group=_RABBIT)
    return oslo_messaging.get_notification_transport(conf, url)


def words(error: BaseException | str) -> str:
    """What the broker or the socket said, on one line and without the AMQP ornaments."""
    text = str(getattr(error, "reply_text", None) or error) or type(error).__name__
    return re.sub(r"^(\[Errno \d+\] |[A-Z_]+ - )", "", " ".join(text.split())).rstrip(". ")
