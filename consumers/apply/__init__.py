"""How is one difference made good?"""
