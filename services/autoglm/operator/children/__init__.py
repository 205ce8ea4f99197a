"""One builder for each kind of child: from a resource to the exact body that is applied. Pure."""
