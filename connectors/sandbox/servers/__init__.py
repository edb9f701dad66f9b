"""Strict, stateful servers on loopback that present a synthetic company as its vendors' APIs.

`box.py` holds what all of them share: the world, the clock, the records, the log. `app.py` puts
the vendors' routes together, `faults.py` spoils answers on demand, `running.py` runs it all.
"""
