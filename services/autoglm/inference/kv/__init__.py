"""KV-cache blocks of a pod: names, the list that gateways follow, salts."""
