"""`autoglm precheck`."""
