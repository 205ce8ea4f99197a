"""The ports of the gateway: gRPC, REST, admin."""
