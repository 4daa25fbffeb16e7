"""The report's parts: what a run folder says, in words, numbers and pictures.

    material (read the folder) → cells, verdict, story, examples (say it) → page, markdown, terminal

Everything here is a function of what was read; `holdfast.stages.report` does the writing.
"""
