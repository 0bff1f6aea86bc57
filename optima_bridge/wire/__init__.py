"""Framings shared by drivers: bytes to messages and back; no I/O, no clock, no logging."""
