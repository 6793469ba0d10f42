"""The trial upstream: a small OpenAI-compatible server on loopback, its own process, standard library only.

New users chat with it without a key; tests use it because it can also do everything an upstream should not
(`faults.py`). Nothing outside this folder knows its name: to the rest of the product it is one more endpoint.

    python -m providers.sandbox --port 9000
"""
