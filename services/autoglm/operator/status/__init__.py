"""The status of a resource: conditions, events, what is wrong and what to do."""
