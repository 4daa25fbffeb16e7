"""Rows: how files and Hub sets become rows, and rows become turns; `load` is the front door."""
