"""Rate limits by tenant, in requests and tokens, and each tenant's share and priority.

`tenants` parses the file, `limiter` decides by token buckets, `meter` counts the tokens that a
request used.
"""
