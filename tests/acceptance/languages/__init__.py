"""Whether others can verify what maintd signs, in their language. `make acceptance` begins with it; it needs no cloud.

An event goes the real way, through the store, the dispatcher and the webhook sink to a socket; what came is put into
a folder, and one tiny program per language says whether it verifies: `verified` or `refused`. Each has to accept it
as it came, by the new secret and by the old one, and to refuse it once anything in it was changed, under another
secret, and with a signature that is right but too old or too far ahead.

Python and JavaScript verify by the Standard Webhooks library of that language. Those are the two languages for which
PyPI, npm and Debian's packages have one; `svix` is there too, for the same two, and calls those libraries. PHP and Ruby
verify **without a library**, by the specification, with what the language brings.
"""
