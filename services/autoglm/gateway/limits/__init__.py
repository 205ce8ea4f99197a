"""Rate limits by tenant, in requests and tokens, and each tenant's share and priority.

`tenants` parses the file, `limiter` decides by token buckets, `limits` applies them to requests and
counts the tokens that those used.
"""
