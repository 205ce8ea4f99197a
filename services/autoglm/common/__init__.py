"""What every service needs, once: errors, settings, rpc, telemetry, probes, TLS, validation."""
