"""MQTT 3.1, 3.1.1 and 5.0: codec, connections and sessions, without I/O."""
