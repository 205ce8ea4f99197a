"""The gateway: takes requests in three protocols, decides, and relays bytes to pods."""
