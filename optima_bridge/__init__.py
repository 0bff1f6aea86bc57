"""optima-bridge: supervisor keys, cards, keylocks and seal switches of a store, mirrored to MQTT."""

__version__ = "0.1.0"
