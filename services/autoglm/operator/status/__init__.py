"""The status of a resource: conditions, events, failures with their remedies."""
