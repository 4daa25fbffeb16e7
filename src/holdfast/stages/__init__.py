"""The stages, in the order of the story: audit, prepare, train, evaluate, judge, compare, report.

Each is a function of its inputs that writes one artefact; the pipeline strings them together.
"""
