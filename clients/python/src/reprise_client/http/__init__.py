"""HTTP/1.1 to one service: messages, policy, and a blocking and an asyncio transport under them."""
