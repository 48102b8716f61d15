"""The config room: from a fleet file to validated, frozen records.

In:   `fleet.yaml`, the prompts that it names, and the environment variables that its routes ask for; all passed in.
Out:  `Fleet` (see `fleet`), or `InvalidFleet` with every problem and its line.
May import: records, errors; PyYAML, pydantic. Must not know: the store, tools, models, who runs what.
Why two steps (`file_model` describes the file, `specs` what it means): the file speaks for people ("$0.25", `10m`, one
word or a list), the rest of the kernel sees whole numbers and tuples only.
"""
