"""Resumes a broken response token by token."""
