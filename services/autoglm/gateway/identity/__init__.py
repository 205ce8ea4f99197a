"""Authentication: from the credentials of a request to a `Principal`, or to an error.

`keys` are API keys, `tokens` and `jwks` JSON Web Tokens; `authenticate` decides, `throttle` limits
guessing; `identity` reloads files and URLs and is the interface of the pipeline.
"""
