"""Certificates of supervisor credentials: their profile, the store's own CA, requests to another CA, and the checks.

One file per question: `profile` what a certificate says, `possession` whose key it is about, `ca` and `ledger` the CA in
the store, `csr` a CA elsewhere, `files` what people hand us, `check` and `revocation` whether it may be written.
"""
