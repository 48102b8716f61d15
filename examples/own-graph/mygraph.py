"""A loop of two nodes, as LangGraph's documents show it, on the kit's model and tools."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import SystemMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import midwatch

__all__ = ["build"]


def build(kit: midwatch.Kit) -> StateGraph[Any, Any, Any, Any]:
    """Put the graph together: think, act, think again until no tool is called."""
    tools = kit.tools("clerk")
    model = kit.model("clerk").bind_tools(tools)
    prompt = SystemMessage(kit.prompt("clerk"))

    async def think(state: MessagesState) -> dict[str, Any]:
        """Ask the model what to do next."""
        return {"messages": [await model.ainvoke([prompt, *state["messages"]])]}

    graph: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)
    graph.add_node("think", kit.guarded(think))
    graph.add_node("act", ToolNode(tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition, {"tools": "act", END: END})
    graph.add_edge("act", "think")
    return graph
