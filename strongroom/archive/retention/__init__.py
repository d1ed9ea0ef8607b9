"""How long objects are kept: the rules that new ones are promised by, and orders about what was sealed earlier."""
