"""Doors for code written against other courses: `cs231n` and `dlfs` (Deep Learning from Scratch).

Each has the course's module names, signatures, array layouts and caches, over this engine; where
the engine lacks an operation, a few lines of numpy. Reads and writes no pickle, shows no picture,
and says what a course would print through `logging`. Nothing else in cnnctl imports from here.
"""
