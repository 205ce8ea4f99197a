"""What each tenant may take: rates in requests and tokens, its share and its priority.

`tenants` reads the rules from a file.
"""
