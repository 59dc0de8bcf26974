"""Saved runs as one page of HTML: code beside its number, and runs over time.

`page` builds what template.html shows, in the looks of style.css; `history` says which runs are of
one machine, and what differs between neighbours; `code` highlights and compares the rungs' code;
`pictures` draws; `command` reads the files and writes the page.
"""
