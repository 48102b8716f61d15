"""Store: durable state. A port (`store.port`), its SQL adapters and a conformance suite that all adapters pass.

May import: config, records, errors. Must not know: LangGraph, guards, who asks. Only `wiring` names an adapter.
"""
