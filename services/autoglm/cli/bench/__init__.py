"""`autoglm bench`: measures a gateway, or any server of OpenAI's API, under load."""
