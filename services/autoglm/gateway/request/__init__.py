"""A request on its way through the gateway. Imports nothing else of the gateway."""
