"""Records: frozen facts that every room shares. No I/O, no behaviour beyond construction and encoding.

May import: errors and the standard library. Must not know: where a fact is stored or who decides on it.
"""
