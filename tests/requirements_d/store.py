"""What the store promises."""

REQUIREMENTS: dict[str, str] = {
    "STORE-1": "An acknowledged durable event survives the death of its process, and the chain verifies.",
    "STORE-2": "A changed, dropped or reordered event below the head is found by `verify`; a lost tail against an anchor.",
    "STORE-3": "In every account spent and held never exceed the cap, whoever claims at the same time.",
    "STORE-4": "An approval is used once, in time, and for the very action it was given for.",
    "STORE-5": "A worker whose run was taken over writes nothing more.",
    "STORE-6": "A damaged, foreign, locked, full or newer database is a clear error and nothing is lost.",
    "STORE-7": "A piece of work that fails undoes itself alone.",
    "STORE-8": "A home of an older revision becomes one of this version when it is opened, whole or not at all; what waited goes on.",
    "STORE-9": "What people say to a gate is kept once each, links and closings are used once, messages wait until they are taken.",
    "STORE-10": "What a poll costs grows with what is due, not with how many gates wait or were ever answered.",
}
