"""Requirements of the sandbox's way out: rules, broker, bridge."""

REQUIREMENTS: dict[str, str] = {
    "EGRESS-1": "a literal address, or a host that no rule names, is refused in every spelling",
    "EGRESS-2": "a path that servers read in more than one way is refused before it is held against globs",
    "EGRESS-3": "what a rule describes is allowed, with its method, port, scheme and path, and nothing besides",
    "EGRESS-4": "a tunnel is opened only to a host of which no rule has methods, paths, headers or stage",
    "EGRESS-5": "a name is resolved once, each of its addresses is checked, and only those are connected to; redirects are not followed",
    "EGRESS-6": "a rule that is wrong, or a secret that is not there, is refused before the sandbox starts",
    "EGRESS-7": "a request that could be read in two ways is refused, and what is sent is written anew",
    "EGRESS-8": "sizes, waits, connections and attempts are bounded, and those beyond are counted",
    "EGRESS-9": "a credential of the sandbox's own is replaced, dropped or refused, and never sent",
    "EGRESS-10": "a secret never comes back into the sandbox, a record, a log, a message or a `repr`",
    "EGRESS-11": "a request is sent once, without cookies, and through no other proxy",
    "EGRESS-12": "a changing request of a staging rule is sent only on commit, checked again, under a key that stays the same",
    "EGRESS-13": "every attempt is recorded; what cannot be recorded is not sent",
    "EGRESS-14": "a sandbox's socket answers its own user alone",
    "EGRESS-15": "clients that know proxies by their environment work unchanged",
    "EGRESS-16": "what is asked of the broker itself is answered by its hook alone, streamed, and its failures tell nothing",
    "BRIDGE-1": "it listens before anything inside can run, and carries bytes both ways with each end closing for itself",
    "BRIDGE-2": "what it holds is bounded: a stuck reader stops its writer, connections wait, a broken one ends alone",
    "BRIDGE-3": "a forked child lets go of it without a trace, and it needs neither threads nor asyncio",
    "BRIDGE-4": "clients of the usual variables find it",
}
