"""Where recorded events go: MQTT and the live stream."""
