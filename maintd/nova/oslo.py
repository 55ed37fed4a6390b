"""oslo.messaging, imported the only safe way.

oslo.service must be told to use its threading backend before oslo.messaging is imported, or it takes the eventlet one;
and eventlet, which comes along as a dependency of a dependency, greets everybody with deprecation warnings although
nobody uses it here. Whoever needs oslo.messaging imports it from this module. Nothing else happens here.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oslo_service import backend

    backend.init_backend(backend.BackendType.THREADING)

    import oslo_messaging
    from oslo_messaging import exceptions, opts
    from oslo_messaging._drivers import common as driver_common
    from oslo_messaging.notify import listener

__all__ = ["driver_common", "exceptions", "listener", "oslo_messaging", "opts"]
