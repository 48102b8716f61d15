"""Agents: one step as a pure function of what the agent can see; roles, prompts, handoffs.

May import: config, recovery, records, errors. Must not know: store, LangGraph, guards, models' clients. A step runs with no
store anywhere: that is what stateless means.
"""
