"""Tools: what an agent may do, said so exactly that every guard and every reader can rely on it.

In:   functions with type hints, and calls as a model wrote them.
Out:  `Tool` with its `ToolContract`, `Checked` arguments, `Performed` outcomes, one `Envelope` for every execution.
May import: recovery, sandbox, config, records, errors. Must not know: models, guards, the engine, the store, who calls.
Why a room of its own: what the kernel can bound, gate and explain is what the contract says; the rest is hope.
"""
