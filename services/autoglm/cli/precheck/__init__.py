"""`autoglm precheck`: checks of a cluster or this machine."""
