"""Shared by every service: errors, settings, rpc, telemetry, probes, TLS, validation."""
