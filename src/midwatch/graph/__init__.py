"""The graph room: what Midwatch does to and for a LangGraph `StateGraph`.

In:   a state graph, or a team's declaration; the store's port.
Out:  a compiled graph whose state is kept by `graph.saver` in Midwatch's own store.
May import: agents, store (the port), records, errors; with `engine` the only room that knows LangGraph.
Must not know: engine, surfaces, concrete stores.
"""
