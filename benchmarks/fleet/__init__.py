"""A fleet of pods in virtual time, driven by the gateway's own routing code."""
