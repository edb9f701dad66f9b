"""News about companies, from a feed of Crunchbase's shape."""
