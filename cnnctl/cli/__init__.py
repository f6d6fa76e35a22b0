"""The command line: one file a command or group, and `display`, which alone prints.

Does no arithmetic and knows no file format; what is heavy is imported when a command runs.
"""
