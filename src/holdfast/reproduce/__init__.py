"""Reproduce: the papers' claims re-measured, with controls, and the ledger of how it came out.

    claims (the shelf) → recipes (arms as recipes) → orders (what to train and ask, once each)
    → workers (processes) → training (one arm's work) → verdicts (statistics) → ledger

Seeds are added in looks until every claim is decided or the most are spent (`study`).
"""
