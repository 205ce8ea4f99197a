"""Which endpoints there are, what they serve and how busy they are."""
