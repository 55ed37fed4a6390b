"""Whether the request in a folder verifies, says the Standard Webhooks library for Python."""

import json
import sys
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

folder = Path(sys.argv[1])
secret, headers = (folder / "secret").read_text(), json.loads((folder / "headers.json").read_text())
try:
    Webhook(secret).verify((folder / "body").read_bytes(), headers)
except WebhookVerificationError:
    print("refused")
else:
    print("verified")
