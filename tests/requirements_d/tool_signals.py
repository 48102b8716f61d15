"""What the view of recoveries by tool and model, and of routes, promises."""

REQUIREMENTS: dict[str, str] = {
    "SIGNALS-1": "faulty arguments are counted by tool version and model, refused ones too, with the argument at fault; too many end in 1",
    "ROUTES-1": "`routes audit` prices every alias, dearest first; what `route_policy` forbids is drift, and no run begins with it",
}
