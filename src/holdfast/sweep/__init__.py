"""Sweeps: one recipe, many values and seeds, and what they say of a method.

    axes (which values) → arms (a run folder each, equal stages shared) → summary → page

`dose` finds the smallest dose that passes the gate and confirms it on probes it was not chosen on;
`grid` crosses every train prompting with every serve prompting.
"""
