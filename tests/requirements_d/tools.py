"""Requirements of the tools room: what a tool is, how it is called, what everyone reads of it."""

REQUIREMENTS: dict[str, str] = {
    "TOOLS-1": "a function's hints and docstring become closed schemas, strictly checked, and nested models arrive as models",
    "TOOLS-2": "every fault of a declaration is told at once, and a tool with a fault does not exist",
    "TOOLS-3": "what is not declared counts as the worst, and is remembered as undeclared",
    "TOOLS-4": "the digest changes with whatever the contract says, and with nothing else",
    "TOOLS-5": "every execution, refusals, time-outs and crashes included, answers with one envelope that fits its schema",
    "TOOLS-6": "what a tool raises or returns wrongly reaches no model: constant words outside, the text in the trace only",
    "TOOLS-7": "a result larger than its budget is paged, projected or cut, and the whole is kept by reference",
    "TOOLS-8": "a cursor reads only what this agent's own calls produced, executes nothing, and leaks nothing when refused",
    "TOOLS-9": "arguments are read strictly: equal keys, wrong types and unknown names are refused without quoting a value",
    "TOOLS-10": "arguments found in prose carry the rule that found them; a cut text is never recovered",
    "TOOLS-11": "a registry loads groups, files and modules, and reports everything that is wrong with all of them",
    "TOOLS-12": "a lint names what is vague, silent or unbounded in a tool",
    "TOOLS-13": "file tools touch nothing outside the working directory, by no path and no link",
    "TOOLS-14": "reading a repository runs nothing that the repository names",
    "TOOLS-15": "host tools work on a minimal machine and say what it does not tell",
    "TOOLS-16": "a tool's thread that overran its time keeps its place, and the answer says that it may go on",
}
