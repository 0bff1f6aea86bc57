"""Certificates into secure memory: `engine` writes them, `recover` settles what a power cut left, `pki` makes and checks them."""
