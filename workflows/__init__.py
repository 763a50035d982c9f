"""Decisions only, one story a file.

Nothing is imported here: the sandbox imports a story's modules anew for each run, and would import all of them.
"""
