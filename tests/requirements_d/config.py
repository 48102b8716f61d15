"""Requirements of the config room: what a fleet file means, and what is said when it is wrong."""

REQUIREMENTS: dict[str, str] = {
    "CONFIG-1": "the agreed shape of a fleet file loads in full, from a file, a folder, a text or a mapping",
    "CONFIG-2": "every problem of a fleet file is told at once, with its line, a stable code and a remedy",
    "CONFIG-3": "no input, however malformed, raises anything but `InvalidFleet`, or takes time without bound",
    "CONFIG-4": "money, time, sizes and tokens are whole numbers; bare or negative amounts are refused",
    "CONFIG-5": "a preset decides where each alias leads, and the environment is read in addresses and models only",
    "CONFIG-6": "no file outside the fleet file's folder is read, by `..`, by an absolute name or by a link",
    "CONFIG-7": "the digests change with whatever the fleet means, and with nothing else",
    "CONFIG-8": "what the file asks for and this version does not enforce is refused, all of it, each with its line",
    "CONFIG-9": "the JSON Schema is made from the models, accepts what loads, and every key of it is documented",
    "CONFIG-10": "an empty value never allows more than an absent one",
    "CONFIG-11": "what is unwise but can run is a warning, never silence and never an error",
    "CONFIG-12": "a fleet file loads in less than 50 ms of processor time",
    "CONFIG-14": "a sandbox is one word or a mapping, for the fleet and for an agent; a fleet that says nothing is isolated",
    "CONFIG-15": "what would undo a sandbox, or what its backend cannot hold, is refused with its line before anything runs",
    "CONFIG-16": "a gate can ask about what a sandbox was seen to do; one that could never be asked is refused",
    "CONFIG-13": "What a file says about asking people is read or refused, and keys that came later leave older digests alone.",
}
