"""The control API: HTTP/1.1 and JSON over a Unix socket, roles by peer credentials."""
