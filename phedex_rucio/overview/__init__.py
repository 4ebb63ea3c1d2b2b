"""How is everything? What the broker and the systems tell, folded into facts, and the facts into words. Pure."""
