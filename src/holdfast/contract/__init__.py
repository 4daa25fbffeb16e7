"""The serving contract: what was measured is what has to be served.

export.py    the template, the contract and the page of commands, written beside a tuned model
folder.py    a model folder against its contract
endpoint.py  a running server against a contract
"""
