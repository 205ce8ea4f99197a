"""Rate limits by tenant, in requests and tokens, and each tenant's share and priority.

`tenants` parses the file, `token_buckets` decides, `metering` applies the limits to requests and
counts the tokens that those used.
"""
