"""AgentDojo against containment, without a model: a worst-case obedient agent, judged by AgentDojo's own checkers.

Run by `python -m bench.agentdojo` in the environment that `scripts/agentdojo.sh` makes; it is neither in CI nor in the development extras.
"""
