"""What the three halves of Healthloop agree on: errors, documents, the company and its tables.

Nothing here opens a connection, reads a clock or imports another package of this project.
"""
