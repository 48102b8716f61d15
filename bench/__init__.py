"""Bench: the bars, measured beside bare LangGraph in one run.

`python -m bench` runs every module here that has a `main()`.
"""
