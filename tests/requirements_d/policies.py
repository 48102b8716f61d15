"""Requirements of what a user writes for containment: sources, policies, conditions, and the commands that explain them."""

REQUIREMENTS: dict[str, str] = {
    "POLICY-1": "`sources`, `policies` and `containment` load as written; saying nothing changes no digest, saying anything changes both.",
    "POLICY-2": "What cannot mean what its author believes is refused, all of it at once, with line and remedy.",
    "POLICY-3": "A condition is true only when its value is true itself: errors, texts, missing and oversized arguments are a no.",
    "POLICY-4": "A condition is held against the schema of each tool it is for: types, names, literals, regular expressions.",
    "POLICY-5": "A policy is a right for each tool that it fits, none elsewhere; patterns are read by what the argument holds.",
    "POLICY-6": "A grant that binds exactly what matters of a tool is a mandate of the operator; any other is none.",
    "POLICY-7": "The narrowest source counts whatever the file's order, with the readers that it declares.",
    "POLICY-8": "Policies that give nothing, that another one contains, or that let strangers choose unbounded are told.",
    "POLICY-9": "`policy explain` judges a call that nobody makes, with its chain; `policy test` fails where a case differs.",
    "POLICY-10": "The condition of a grant is enforced: the grant allows nothing where the condition is not true.",
}
