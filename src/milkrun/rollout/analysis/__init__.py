"""How the new version is compared with the old one while both serve. Pure.

`judge` is the door: `guards` and `look`. What they take and say is in `verdict`.
"""
