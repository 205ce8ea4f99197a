"""What each tenant may take: rates in requests and tokens, its share and its priority.

`tenants` reads the rules from a file, `limiter` decides by token buckets, `meter` learns what a
request has really taken.
"""
