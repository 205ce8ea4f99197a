"""Who asks: from the credential of a request to a `Principal`, or to a refusal.

`keys` are API keys, `tokens` and `jwks` JSON Web Tokens; `authenticate` decides, `throttle` slows
guessing down; `identity` follows files and URLs and is what the layers ask.
"""
